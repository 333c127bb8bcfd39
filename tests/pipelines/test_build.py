"""What is looked at before a loader is built: devices, Numba, the recipe."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.views import cpu
from pipelines import build, build_loader
from tests.helpers.loaders import loader_config


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_said(textured: Path) -> None:
    with pytest.raises(UserError, match="data.device=gpu: no GPU found"):
        build_loader(loader_config(textured, device="gpu"))


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An interpreter that has not imported Numba yet and cannot."""
    cpu._kernel.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "dali_bgaug.views.kernels", raising=False)
    monkeypatch.delattr("dali_bgaug.views.kernels", raising=False)
    yield
    cpu._kernel.cache_clear()


@pytest.mark.parametrize(
    ("visible", "local_rank", "chosen"), [(1, "0", 0), (1, "3", 0), (4, "3", 3), (0, "2", None)]
)
def test_a_task_that_sees_one_gpu_takes_it(
    visible: int, local_rank: str, chosen: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its rank on the machine is: a scheduler may show every task its own."""
    monkeypatch.setattr(build.backend, "GetCUDADeviceCount", lambda: visible)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert build.choose_device("auto", None) == chosen
    if visible == 4:
        monkeypatch.setenv("LOCAL_RANK", "4")
        with pytest.raises(UserError, match="wants GPU 4, there are 4"):
            build.choose_device("gpu", None)


def test_views_on_the_cpu_without_numba_are_an_error_that_says_what_to_do(
    textured: Path, no_numba: None
) -> None:
    with pytest.raises(UserError, match=r"Numba, which cannot be imported .*: pip install numba"):
        build_loader(loader_config(textured))


def test_the_recipe_is_logged_once(textured: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By rank 0, and not again when a state is loaded."""
    with caplog.at_level("INFO", "dali_bgaug"):
        with build_loader(loader_config(textured), 0, 2) as loader:
            loader.load_state_dict(loader.state_dict())
        with build_loader(loader_config(textured), 1, 2):
            pass
    [record] = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage().startswith("query, key\n    random crop of area 0.2 to 1, ratio")
