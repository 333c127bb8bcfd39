"""Everything in this folder needs a GPU and skips without one."""

from pathlib import Path

import pytest
from nvidia.dali import backend


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if backend.GetCUDADeviceCount() == 0:
                item.add_marker(pytest.mark.skip(reason="no GPU"))
