"""Everything in this folder needs a GPU and skips without one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nvidia.dali import backend


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """Two threads for what runs on the CPU: several test processes share it, and torch's threads wait for one
    another."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if backend.GetCUDADeviceCount() == 0:
                item.add_marker(pytest.mark.skip(reason="no GPU"))
