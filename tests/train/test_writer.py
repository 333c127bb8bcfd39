"""Checkpoints written in the background: copies, one at a time, errors."""

import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torchvision

from dali_bgaug.errors import UserError
from tests.helpers.runs import TinyNet, read_losses, read_recipe, write_recipe
from train import checkpoint
from train.loop import train
from train.networks import FEATURES
from train.records import LogLine
from train.writer import CheckpointWriter, bytes_of, host_copy


def test_a_copy_is_of_its_own_memory() -> None:
    images = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    state = {"weight": images, "groups": [{"lr": 0.5, "params": [0, 1]}], "slices": (images[:, :1], None)}
    copy = host_copy(state)
    assert bytes_of(copy) == 4 * (24 + 12)
    images.zero_()
    assert torch.equal(copy["weight"], torch.arange(24.0).reshape(1, 2, 3, 4))
    assert copy["weight"].stride() == images.stride()
    assert copy["groups"] == [{"lr": 0.5, "params": [0, 1]}]
    assert copy["groups"][0] is not state["groups"][0]
    assert copy["slices"][0].flatten().tolist() == list(range(12))
    assert copy["slices"][0].untyped_storage().nbytes() == 12 * 4  # a slice drags nothing along
    assert copy["slices"][1] is None


def test_one_is_written_at_a_time() -> None:
    writer, go, order = CheckpointWriter(), threading.Event(), []
    assert writer.wait() == 0

    def write(name: str) -> None:
        go.wait(10)
        order.append(name)

    writer.start(lambda: write("first"), LogLine(step=1))
    assert writer.lines() == []
    threading.Timer(0.05, go.set).start()
    assert 0 < writer.wait() < 10
    writer.start(lambda: write("second"), LogLine(step=2))
    writer.wait()
    assert order == ["first", "second"]
    assert [(line.step, line.checkpoint_write_s >= 0) for line in writer.lines()] == [(1, True), (2, True)]
    assert writer.lines() == []


@pytest.mark.parametrize(("every", "steps"), [(2, 5), (100, 6)])
def test_what_could_not_be_written_ends_the_run(
    every: int, steps: int, textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon after, before the next checkpoint; or, of the last one, at the end."""
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)
    monkeypatch.setattr(checkpoint, "write", Mock(side_effect=UserError("no space left")))
    config = read_recipe(
        write_recipe(tmp_path, textured, "supervised", epochs=1), f"checkpoint_every={every}"
    )
    with pytest.raises(UserError, match="no space left"):
        train(config, tmp_path / "out")
    assert len(read_losses(tmp_path / "out")) <= steps
    assert not (tmp_path / "out" / "backbone.pt").exists()
