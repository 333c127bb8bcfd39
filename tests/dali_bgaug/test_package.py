"""What the packages offer and say of themselves."""

import subprocess
import sys

import pytest

import dali_bgaug


def test_public_names_come_when_they_are_asked_for() -> None:
    code = (
        "import sys, dali_bgaug; from dali_bgaug import UserError; "
        "assert not {'torch', 'nvidia.dali', 'pydantic'} & set(sys.modules); "
        "from dali_bgaug import *; print(sorted(set(dali_bgaug.__all__) & set(globals())))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == (
        "['Dataset', 'Loader', 'Manifest', 'UserError', '__version__', 'open_data', 'open_shards']\n"
    )
    with pytest.raises(AttributeError, match="no attribute 'Loadr'"):
        _ = dali_bgaug.Loadr
