"""Evaluation on a GPU says what it says on the CPU."""

from pathlib import Path

import pytest
import torch

from dali_bgaug.config import override
from tests.helpers.sets import coloured_set, untrained_run
from train.evaluate.backbone import load_backbone
from train.evaluate.fast import linear_fast
from train.evaluate.probe import RECIPES, ProbeJob, probe_config, run_probe
from train.features import Runtime, evaluation_config, extract_features, ready
from train.neighbours import knn
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
        backbone, runtime = load_backbone(run), Runtime(device=name)
        bank, test = (
            evaluation_config(backbone.config.data, path, runtime=runtime) for path in (coloured, photos)
        )
        rows.append(extract_features(ready(backbone.network, device), test, device, name).rows.cpu())
        assert knn(backbone.network, bank, test, device)["top1"] == 1.0
        assert linear_fast(backbone, bank, test, device)["top1"] == 1.0
    cosine = torch.nn.functional.cosine_similarity(*rows)
    assert cosine.min() > 0.99


def test_a_linear_probe(coloured: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path, coloured)
    words = ("data.batch_size=12", "epochs=20", "optim.milestones=[15]", "optim.warmup_epochs=0")
    words += ("optim.lr=0.3", "optim.lr_batch=12", "data.crop.scale=[0.5, 1.0]")
    recipe = RECIPES / "linear_swav.yaml"
    words += ("optim.schedule=steps",)
    config = probe_config(load_backbone(run), run, coloured, recipe, override({}, list(words)))
    job = ProbeJob(config, coloured.parent / "photos", tmp_path / "probe")
    assert run_probe(job, GPU, StopRequest())["top1"] == 1.0
