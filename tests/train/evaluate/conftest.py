"""Every test here works with the tiny network in a ResNet-18's place."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from tests.helpers.probes import LINEAR, Files
from tests.helpers.runs import TinyNet
from tests.helpers.sets import coloured_set, untrained_run
from train.evaluate.probe import RECIPES
from train.networks import FEATURES


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`resnet18` is the TinyNet, for which one thread is enough."""
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 36 photos in three classes that any network tells apart."""
    return coloured_set(tmp_path_factory.mktemp("coloured"))


@pytest.fixture
def untrained(tmp_path: Path, coloured: Path) -> Path:
    """A run of MoCo-v2 that has done no step."""
    return untrained_run(tmp_path, coloured)


@pytest.fixture
def job(untrained: Path, coloured: Path, tmp_path: Path) -> Files:
    """A linear probe of random features for colours."""
    recipe = RECIPES / "linear_moco_v2.yaml"
    return Files(untrained, coloured, coloured.parent / "photos", tmp_path / "probe", recipe, LINEAR)
