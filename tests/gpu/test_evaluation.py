"""Evaluation on a GPU says what it says on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dali_bgaug.config import override
from tests.helpers.judging import colour_network, colour_photos, colour_set
from tests.helpers.sets import coloured_set, untrained_run
from train.evaluate.backbone import load_backbone
from train.evaluate.fast import linear_fast
from train.evaluate.probe import RECIPES, ProbeJob, probe_config, run_probe
from train.evaluate.robustness.fgsm import FgsmScore
from train.evaluate.robustness.run import evaluate_set, set_config
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


def test_a_set_whose_photos_are_partly_damaged(tmp_path: Path) -> None:
    """Shown without a border and without a resize, and attacked."""
    files = colour_photos(tmp_path, 11)
    for number in (2, 7):
        (tmp_path / files[number]).write_bytes(b"\xff\xd8 cut short")
    network = colour_network()
    labels = np.arange(len(files)) % 3
    for values in ({}, {"resize": None, "border": 2}, {"score": FgsmScore(labels, network.normalise, 8.0)}):
        found = []
        for device, name in ((GPU, "gpu"), (torch.device("cpu"), "cpu")):
            photos = colour_set(tmp_path, files, **values)
            config = set_config(network, photos, Runtime(batch_size=4, device=name), "ignore")
            found.append(evaluate_set(network, photos, config, device))
        assert found[0] == found[1]
        assert found[0]["value"] == 1.0
        assert found[0]["unread"] == [files[2], files[7]]
