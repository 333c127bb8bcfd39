"""The way from photos to a detector of masks without any label."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.detectors import scene

ROOT = Path(__file__).parents[3]


def _run(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tools.saliency_train", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_from_photos_to_masks(tmp_path: Path) -> None:
    """Voters' stores, a short training, a network that `tools.masks` takes; damaged photos are left out."""
    (tmp_path / "photos").mkdir()
    image, _ = scene()
    for number in range(5):
        turned = np.roll(image, 7 * number, 1)
        Image.fromarray(turned).save(tmp_path / "photos" / f"{number}.jpg", quality=95)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    words = (
        "--photos",
        f"{tmp_path}/photos",
        "--out",
        f"{tmp_path}/out",
        "--voters",
        "mc",
        "rbd",
        "--workers",
        "1",
    )
    small = (
        "trunk=resnet10_narrow",
        "side=32",
        "batch_size=4",
        "refine.epochs=1",
        "fuse.epochs=1",
        "device=cpu",
    )
    done = _run(*words, *small)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/voters/mc/00000-of-00001.h5").is_file()
    weights = tmp_path / "out/saliency.onnx"
    masks = [
        sys.executable,
        "-m",
        "tools.masks",
        "--photos",
        f"{tmp_path}/photos",
        "--out",
        f"{tmp_path}/masks",
    ]
    masks += ["--detector", "deepusps", "--weights", str(weights), "--workers", "1", "--threshold", ".001"]
    found = subprocess.run(masks, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert "5 photos in 1 file" in found.stdout
    again = _run(*words, *small)  # nothing is done anew
    assert again.returncode == 0
    assert "stage" not in again.stdout


def test_bad_words_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    words = ("--photos", f"{tmp_path}/photos", "--out", f"{tmp_path}/out")
    for more, message in (
        (("--voters", "mc", "nothing"), "--detector=nothing: there are"),
        (("--voters", "mc", "mc"), "--voters: each once"),
        (("side=",), "side="),
        (("sides=128",), "sides"),
    ):
        done = _run(*words, *more)
        assert done.returncode == 2 and message in done.stderr, (more, done.stderr)
    assert not (tmp_path / "out").exists()
