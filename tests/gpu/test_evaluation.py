"""Evaluation on a GPU says what it says on the CPU."""

from pathlib import Path

import pytest
import torch

from tests.train.evaluate.sets import coloured_set, untrained_run
from train.evaluate.backbone import load_backbone
from train.evaluate.fast import linear_fast
from train.evaluate.features import evaluation_data, extract_features, ready
from train.evaluate.neighbours import knn
from train.evaluate.probe import RECIPES, ProbeJob, run_probe
from train.signals import StopRequest

GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 36 photos in three classes that any network tells apart."""
    return coloured_set(tmp_path_factory.mktemp("coloured"))


def test_features_and_accuracies(coloured: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path, coloured)
    photos = coloured.parent / "photos"
    rows = []
    for device, name in ((GPU, "gpu"), (torch.device("cpu"), "cpu")):
        network, config, _ = load_backbone(run)
        data = evaluation_data(config["data"], photos, "--test", [f"device={name}"])
        rows.append(extract_features(ready(network, device), data, device, name).rows.cpu())
        words = [f"device={name}"]
        assert knn(network, config["data"], coloured, photos, device, words=words)["top1"] == 1.0
        assert linear_fast(run, coloured, photos, device, words=words)["top1"] == 1.0
    cosine = torch.nn.functional.cosine_similarity(*rows)
    assert cosine.min() > 0.99


def test_a_linear_probe(coloured: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path, coloured)
    words = ("data.batch_size=12", "epochs=20", "optim.milestones=[15]", "optim.warmup_epochs=0")
    words += ("optim.lr=0.3", "optim.lr_batch=12", "data.crop.scale=[0.5, 1.0]")
    recipe = RECIPES / "linear_swav.yaml"
    words += ("optim.schedule=steps",)
    job = ProbeJob(run, coloured, coloured.parent / "photos", tmp_path / "probe", recipe, words)
    assert run_probe(job, GPU, StopRequest())["top1"] == 1.0
