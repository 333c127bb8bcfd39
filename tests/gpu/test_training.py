"""Every method trains, stops and goes on on a GPU."""

from pathlib import Path

import pytest
import torch

from dali_bgaug.files import read_log
from tests.helpers.runs import METHODS, read_losses, read_recipe, write_recipe
from train import checkpoint
from train.export import backbone_weights
from train.health import check_health
from train.loop import train
from train.trainer import Trainer

WORDS = ("data.device=gpu", "epochs=2", "optim.milestones=[]")


@pytest.mark.parametrize("method", METHODS)
def test_a_run_resumes_on_a_gpu(method: str, textured: Path, tmp_path: Path) -> None:
    """bfloat16, channels last. GPU kernels add in no fixed order: the data is the same, the losses nearly
    are. The backbone it leaves is for any machine."""
    config = read_recipe(write_recipe(tmp_path, textured, method, checkpoint_every=7), *WORDS)
    train(config, tmp_path / "whole")
    losses = read_losses(tmp_path / "whole")
    lines = [line for line in read_log(tmp_path / "whole" / "log.jsonl")[0] if "loss" in line]
    assert len(losses) == 12
    assert all(line["ranks"]["memory_mb"][0] > 0 and line["ranks"]["probe_ms"][0] > 0 for line in lines)
    folder = tmp_path / "whole" / "checkpoints"
    (folder / "step-00000012.pt").unlink()
    train(config, tmp_path / "whole", resume=True)
    again = read_losses(tmp_path / "whole")
    assert again[7:] == pytest.approx(losses[7:], rel=0.1)
    exported = torch.load(tmp_path / "whole" / "backbone.pt")
    assert all(value.device.type == "cpu" for value in exported.values())
    weights = backbone_weights(checkpoint.load(folder / "latest.pt"))
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_the_check_tells_of_the_gpu(
    textured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_recipe(write_recipe(tmp_path, textured, "moco_v2"), *WORDS)
    assert check_health(config, tmp_path / "out", torch.device("cuda", 0))
    text = capsys.readouterr().out
    assert torch.cuda.get_device_name(0) in text
    assert "GiB taken in all" in text


@pytest.mark.parametrize("method", METHODS)
def test_networks_and_views_lie_on_the_gpu(method: str, textured: Path, tmp_path: Path) -> None:
    config = read_recipe(write_recipe(tmp_path, textured, method), *WORDS)
    with Trainer(config, torch.device("cuda", 0)) as trainer:
        assert trainer.amp
        values = trainer.step(iter(trainer.loader))
        assert values["loss"].device.type == "cuda"
        assert values["loss"].dtype == torch.float32
        convolution = next(p for p in trainer.method.backbone.parameters() if p.dim() == 4)
        assert convolution.is_contiguous(memory_format=torch.channels_last)
