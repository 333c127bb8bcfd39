"""What the packages offer and say of themselves."""

import subprocess
import sys

import pytest

import dali_bgaug


def test_public_names_come_when_they_are_asked_for() -> None:
    code = (
        "import sys, dali_bgaug; from dali_bgaug import UserError; "
        "assert not {'torch', 'nvidia.dali', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    names: dict[str, object] = {}
    exec("from dali_bgaug import *", names)
    assert sorted(names.keys() - {"__builtins__"}) == [
        *("Dataset", "Loader", "Manifest", "UserError", "__version__", "open_data", "open_shards")
    ]
    with pytest.raises(AttributeError, match="no attribute 'Loadr'"):
        _ = dali_bgaug.Loadr
