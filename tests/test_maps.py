"""The maps of packages: every module is named in its package's docstring."""

import pkgutil
import re
from importlib import import_module

import pytest


@pytest.mark.parametrize("package", ["train", "train.evaluate", "train.methods"])
def test_every_module_is_on_the_map(package: str) -> None:
    module = import_module(package)
    names = {
        f"{found.name}/" if found.ispkg else f"{found.name}.py"
        for found in pkgutil.iter_modules(module.__path__)
    }
    assert len(names) > 2
    missing = {name for name in names if not re.search(rf"(?<!\w){re.escape(name)}", module.__doc__)}
    assert missing == set()
