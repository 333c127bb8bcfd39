"""The maps of packages: every module is named in its package's docstring, and nothing else is."""

import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    ".".join(path.parent.relative_to(ROOT).parts)
    for name in ("dali_bgaug", "pipelines", "train", "tools")
    for path in sorted((ROOT / name).rglob("__init__.py"))
]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_on_the_map(package: str) -> None:
    module = import_module(package)
    there = {found.name for found in pkgutil.iter_modules(module.__path__[:1])} - {"__main__"}
    assert there
    named = re.findall(r"^(?: {4})?(\w+)(?:\.py|/)? {2,}\S", module.__doc__, re.MULTILINE)
    assert there == set(named) - {"__main__"}
