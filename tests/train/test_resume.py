"""Whether a run begins, goes on, or is refused its folder."""

from pathlib import Path

import pytest
import torch
import torchvision

from dali_bgaug.errors import UserError
from tests.helpers.processes import holding
from tests.helpers.runs import TinyNet, read_losses, read_recipe, write_recipe
from train import checkpoint
from train.loop import Loop, train
from train.networks import FEATURES
from train.signals import StopRequest

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)


def test_auto_resume_passes_over_a_damaged_checkpoint(
    textured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And ends with the same losses; if all are damaged, it does not start anew."""
    words = ("checkpoint_every=2", "keep_checkpoints=9")
    config, out = (
        read_recipe(write_recipe(tmp_path, textured, "supervised", epochs=1), *words),
        tmp_path / "out",
    )
    train(config, out)
    losses = read_losses(out)
    paths = checkpoint.list_checkpoints(out / "checkpoints")
    paths[-1].write_bytes(paths[-1].read_bytes()[:-100])
    train(config, out, "auto")
    assert f"going on from {paths[-2]}:" in capsys.readouterr().err
    assert read_losses(out) == losses
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="--auto-resume: no checkpoint can be read"):
        train(config, out, "auto")


def test_a_folder_is_of_one_run_at_a_time(textured: Path, tmp_path: Path) -> None:
    config, out = read_recipe(write_recipe(tmp_path, textured, "supervised", epochs=1)), tmp_path / "out"
    for resume in (False, "auto"):
        with (
            holding(out / "lock") as holder,
            pytest.raises(UserError, match=rf"--out={out}: .* in use by .* process {holder.pid}"),
        ):
            train(config, out, resume)
    assert [path.name for path in out.iterdir()] == ["lock"]
    train(config, out)
    assert not (out / "lock").exists()


def test_a_run_says_how_it_ended_and_how_to_judge_it(
    textured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = read_recipe(write_recipe(tmp_path, textured, "supervised", epochs=1)), tmp_path / "a run"
    train(config, out)
    loss = read_losses(out)[-1]
    said = capsys.readouterr().out
    assert f"{out}: 6 steps, last loss {loss:.3f}, weights in backbone.pt; next: python -m train" in said
    assert f"'--checkpoint={out}' --data={textured} --test=" in said


def test_a_run_is_never_overwritten_or_mixed(textured: Path, tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path, textured, "supervised", epochs=1), tmp_path / "out"
    train(read_recipe(recipe), out)
    log = (out / "log.jsonl").read_text()
    assert len(read_losses(out)) == 6
    with pytest.raises(UserError, match="holds a run already"):
        train(read_recipe(recipe), out)
    with pytest.raises(UserError) as error:
        train(read_recipe(recipe, "epochs=2", "optim.lr=0.7"), out, resume=True)
    assert (
        "was made with another config: optim.lr was 0.05, now it is 0.7; epochs was 1, now it is 2; resume"
        in str(error.value)
    )
    assert (out / "log.jsonl").read_text() == log
    train(
        read_recipe(recipe, "log_every=5", "timeout_s=9"), out, resume=True
    )  # finished: nothing is left to do
    assert (out / "log.jsonl").read_text() == log


def test_a_run_does_not_begin_in_anothers_folder(textured: Path, tmp_path: Path) -> None:
    """Also where that has no checkpoint yet, or none any more; the same run may."""
    recipe = write_recipe(tmp_path, textured)
    out = tmp_path / "out"
    with Loop(read_recipe(recipe, "seed=1"), out, "auto", CPU, StopRequest()):
        pass
    for resume in (False, "auto"):
        with pytest.raises(UserError, match=r"config.json: a run with another config began here: seed was 1"):
            Loop(read_recipe(recipe, "seed=2"), out, resume, CPU, StopRequest())
    with pytest.raises(UserError, match=r"began here: init was None, now it is .*weights.pt"):
        Loop(read_recipe(recipe, "seed=1", "init=weights.pt"), out, "auto", CPU, StopRequest())
    with Loop(read_recipe(recipe, "seed=1", "log_every=3"), out, "auto", CPU, StopRequest()):
        pass
    (out / "backbone.pt").touch()
    for resume in (False, "auto"):
        with pytest.raises(
            UserError, match=r"backbone.pt: a run has ended here, and its checkpoints are gone"
        ):
            Loop(read_recipe(recipe, "seed=1"), out, resume, CPU, StopRequest())
    (out / "config.json").write_text("{}")
    (out / "backbone.pt").unlink()
    with pytest.raises(
        UserError, match=r"another config began here: it cannot be read; choose another --out"
    ):
        Loop(read_recipe(recipe, "seed=1"), out, False, CPU, StopRequest())
