"""The whole path, small: a folder of photos in and nothing else, a trained checkpoint and figures out."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers import programs
from tools.offline.detectors import read_options
from tools.study import demo
from tools.study.demo import run_demo
from tools.study.plot import read_curves

QUICK = ["epochs=4", "data.device=cpu", "data.threads=2", "data.crop.size=32", "method.queue=32"]


def _demo(textured: Path, out: Path) -> dict:
    return run_demo(textured.parent / "photos", None, out, 2, QUICK)


@pytest.mark.slow
def test_photos_become_a_checkpoint_and_figures(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "LOADER_SECONDS", 0.2)
    monkeypatch.setattr(demo, "start", programs.start)
    monkeypatch.setattr(demo, "choose_detector", lambda *_: read_options("rbd", {}, []))  # which is fast
    out = tmp_path / "demo"
    summary = _demo(textured, out)
    assert summary == json.loads((out / "summary.json").read_text())
    assert {"first_loss", "last_loss", "chance_loss", "loader_images_per_s", "seconds", "device"} <= set(
        summary
    )
    assert summary["chance_loss"] == 3.5264  # ln(1 + 32 + 1)
    assert summary["samples"] == 50
    assert summary["steps"] == 4 * 3
    assert len(read_curves(out)["loss"][0]) == 12
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"step-00000012.pt", "latest.pt"}
    assert (out / "backbone.pt").is_file()
    for name, columns in (("views.png", 6), ("curves.png", 2)):
        with Image.open(out / name) as image:
            assert image.format == "PNG"
            assert image.width > 100 * columns

    # A run that was cut short goes on from what is there.
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(demo, "start", lambda *words: commands.append(words))
    monkeypatch.setattr(demo, "draw_views", lambda *_: None)
    shards = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    (out / "summary.json").unlink()
    again = _demo(textured, out)
    assert ["--auto-resume" in command for command in commands] == [True]
    assert again["last_loss"] == summary["last_loss"]
    assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == shards

    (out / "summary.json").unlink()
    (out / "backbone.pt").unlink()
    with pytest.raises(UserError, match="training was stopped; the same command goes on"):
        _demo(textured, out)


def test_masks_without_photos_and_missing_folders_are_errors(textured: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"given without --data"):
        run_demo(None, textured.parent / "masks", tmp_path / "out", 1, [])
    with pytest.raises(UserError, match=r"--data=.*nowhere: does not exist"):
        run_demo(tmp_path / "nowhere", textured.parent / "masks", tmp_path / "out", 1, [])
    with pytest.raises(UserError, match=r"--masks=.*nowhere: does not exist"):
        run_demo(textured.parent / "photos", tmp_path / "nowhere", tmp_path / "out", 1, [])
    assert not (tmp_path / "out").exists()
