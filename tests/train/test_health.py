"""The check before a training: what is well, and each fault by itself."""

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torchvision

from tests.helpers.processes import finish, launch
from tests.helpers.runs import TinyNet, read_recipe, use_tiny_net, write_recipe
from train import health
from train.__main__ import main
from train.health import check_health
from train.networks import FEATURES
from train.trainer import Trainer

WHAT = ["CPU threads", "GPU", "clocks", "all_reduce", "shards", "batch", "checkpoints"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)


def _check(folder: Path, shards: Path, *words: str) -> bool:
    config = read_recipe(write_recipe(folder, shards), *words)
    return check_health(config, folder / "out", torch.device("cpu"))


def _table(text: str) -> dict[str, str]:
    """State and value of each line, by what was checked."""
    lines = text.splitlines()
    return {line[:13].strip(): line[13:] for line in lines if line[13:19].strip() in ("ok", "FAILED")}


def test_all_is_well(textured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing is written."""
    assert _check(tmp_path, textured, "keep_every_epochs=4")
    table = _table(capsys.readouterr().out)
    assert list(table) == WHAT
    assert all(line.startswith("ok") for line in table.values())
    assert "50 photos in 4 shards; read at" in table["shards"]
    assert "8 photos, a step in" in table["batch"]
    assert "5 of 0.1 MB" in table["checkpoints"]  # two kept, two for good, one being written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moco_v2.yaml"]


@pytest.mark.parametrize("damage", ["missing", "cut", "photo"])
def test_shards_that_are_not_whole(
    damage: str, textured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No batch is tried then. Of photos the first and the last are looked at."""
    tar = shutil.copytree(textured, tmp_path / "shards") / "shard-00000.tar"
    if damage == "missing":
        tar.unlink()
    else:
        data = tar.read_bytes()
        tar.write_bytes(data[:-512] if damage == "cut" else data[:512] + bytes(2000) + data[2512:])
    assert not _check(tmp_path, tmp_path / "shards")
    text = capsys.readouterr().out
    table = _table(text)
    assert list(table) == WHAT[:5]
    assert table["shards"].startswith("FAILED")
    assert str(tar) in text
    assert text.endswith("failed: shards; no batch was tried\n")


def test_a_full_disk(
    textured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", Mock(return_value=Mock(free=1000)))
    assert not _check(tmp_path, textured)
    text = capsys.readouterr().out
    assert _table(text)["checkpoints"].startswith("FAILED")
    assert "lower keep_checkpoints" in text


def test_a_batch_that_does_not_fit_and_too_few_cpus(
    textured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(Trainer, "step", Mock(side_effect=error))
    assert not _check(tmp_path, textured, "data.threads=999")
    text = capsys.readouterr().out
    assert [what for what, line in _table(text).items() if line.startswith("FAILED")] == [
        "CPU threads",
        "batch",
    ]
    assert "CUDA out of memory" in text
    assert "lower data.batch_size, or raise accumulate" in text


def _check_rank(recipe: Path, folder: Path) -> None:
    """What a rank does; the second one's clock is a minute late."""
    use_tiny_net()
    health.REDUCED = 1 << 18
    if os.environ["RANK"] == "1":
        now = time.time
        time.time = lambda: now() - 60
    sys.argv = ["train", "--check", "--config", str(recipe), "--out", str(folder / "out")]
    with Path(folder / os.environ["RANK"]).open("w") as file, contextlib.redirect_stdout(file):
        main()


@pytest.mark.slow
def test_two_ranks_one_of_them_late(textured: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, textured)
    assert finish(launch(_check_rank, recipe, tmp_path, ranks=2)) == [1, 1]
    text = (tmp_path / "0").read_text()
    table = _table(text)
    assert list(table) == WHAT
    assert [what for what, line in table.items() if line.startswith("FAILED")] == ["clocks"]
    assert "rank 1 is behind rank 0" in text
    assert "2 ranks, 1 MiB in" in table["all_reduce"]
    assert (tmp_path / "1").read_text() == ""
    assert not (tmp_path / "out").exists()
