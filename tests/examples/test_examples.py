"""The examples, run as a reader runs them."""

import re
import runpy
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.processes import finish, launch
from tests.helpers.shards import save

EXAMPLES = Path(__file__).parents[2] / "examples"
STEP = re.compile(r"epoch (\d+) step (\d+) loss (\S+)$", re.MULTILINE)
Steps = list[tuple[int, int, float]]


def _start(script: Path, words: list[str], printed: Path) -> None:
    sys.argv = [str(script), *words]
    with printed.open("w") as file, redirect_stdout(file):
        runpy.run_path(str(script), run_name="__main__")


def _run(name: str, folder: Path, *words: object) -> tuple[int | None, str, str]:
    """Run an example in a process of its own: its exit code, what it printed, and its errors."""
    printed, errors = folder / "printed", folder / "errors"
    errors.write_text("")
    processes = launch(_start, EXAMPLES / name, [*map(str, words)], printed, errors=errors)
    return finish(processes)[0], printed.read_text(), errors.read_text()


def _train(name: str, folder: Path, *words: object, photos: int) -> Steps:
    """Epoch, step and loss of every step; the run ended well, having seen so many photos in all."""
    code, printed, errors = _run(name, folder, "--batch-size", 10, *words)
    assert code == 0, errors
    assert f"{photos} photos seen\n" in printed
    return [(int(epoch), int(step), float(loss)) for epoch, step, loss in STEP.findall(printed)]


@pytest.mark.slow
def test_own_loop_goes_on_in_mid_epoch_with_the_same_losses(textured: Path, tmp_path: Path) -> None:
    def train(steps: int, state: str) -> Steps:
        words = textured, "--steps", steps, "--state", tmp_path / "states" / state
        return _train("own_loop.py", tmp_path, *words, photos=10 * steps)

    whole = train(7, "whole.pt")
    assert [line[:2] for line in whole] == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 6), (1, 7)]
    assert np.isfinite([loss for *_, loss in whole]).all()
    assert train(3, "parts.pt") + train(7, "parts.pt") == whole


def test_what_a_user_gets_wrong_is_one_line(tmp_path: Path) -> None:
    words = tmp_path / "nowhere", "--state", tmp_path / "state.pt"
    code, printed, errors = _run("own_loop.py", tmp_path, *words)
    assert (code, printed) == (2, "")
    assert errors.startswith(f"error: data.shards={tmp_path / 'nowhere'}: does not exist")
    assert errors.count("\n") == 1


@pytest.mark.skipif(find_spec("lightning") is None, reason="Lightning is not installed")
def test_lightning_resumes_with_the_same_losses(textured: Path, tmp_path: Path) -> None:
    def train(epochs: int, out: str, *words: object) -> Steps:
        words = textured, "--epochs", epochs, "--out", tmp_path / out, *words
        return _train("lightning_module.py", tmp_path, *words, photos=50 * epochs)

    whole = train(2, "whole")
    assert [line[:2] for line in whole] == [(step // 5, step + 1) for step in range(10)]
    checkpoint = tmp_path / "parts" / "checkpoints" / "epoch=0-step=5.ckpt"
    assert train(1, "parts") + train(2, "parts", "--resume", checkpoint) == whole


@pytest.mark.skipif(find_spec("lightning") is not None, reason="Lightning is installed")
def test_without_lightning_its_example_says_what_to_install(tmp_path: Path) -> None:
    code, printed, errors = _run("lightning_module.py", tmp_path, tmp_path)
    assert (code, printed) == (1, "")
    assert errors.startswith("error: ") and "pip install lightning" in errors


@pytest.mark.slow
def test_own_backgrounds_lie_behind_every_view(tmp_path: Path) -> None:
    for number in range(12):  # grey photos with a white square, whose own backgrounds are red or blue
        photo, mask = np.full((96, 96, 3), 100, np.uint8), np.zeros((96, 96), bool)
        mask[32:64, 32:64] = True
        photo[mask] = 255
        save(tmp_path, f"grey/{number}", photo, mask)
        painted = tmp_path / "painted" / "grey" / f"{number}.png"
        painted.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 96), "red" if number % 2 else "blue").save(painted)
    folders = [f"--{kind}={tmp_path / folder}" for kind, folder in (("photos", "photos"), ("masks", "masks"))]
    out = tmp_path / "out"
    words = *folders, f"--backgrounds={tmp_path / 'painted'}", f"--out={out}"
    code, printed, errors = _run("own_backgrounds.py", tmp_path, *words)
    assert code == 0, errors
    assert "16 of 16 views have a background of" in printed
    sheet = np.asarray(Image.open(out / "views.png")).astype(int)  # 2 rows of 8 views
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255), "white": (255, 255, 255), "grey": (100, 100, 100)}
    pixels = {
        name: (np.abs(sheet - colour).max(axis=2) <= 8).reshape(2, 224, 8, 224).sum(axis=(1, 3))
        for name, colour in colours.items()
    }
    assert ((pixels["red"] > 224) ^ (pixels["blue"] > 224)).all()
    assert pixels["white"].min() > 224
    assert pixels["grey"].max() == 0
    assert min((pixels[name] > 224).sum() for name in ("red", "blue")) > 0
