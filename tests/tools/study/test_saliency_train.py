"""The way from photos to a detector of masks without any label."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers import programs
from tests.helpers.detectors import scene
from tools.offline.detectors import read_options
from tools.offline.masks import write_mask_store
from tools.study import saliency_train

SMALL = ("trunk=resnet10_narrow", "side=32", "batch_size=4", "refine.epochs=1", "fuse.epochs=1", "device=cpu")


def _run(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    given = ("--photos", str(folder / "photos"), "--out", str(folder / "out"), "--workers", "1", *words)
    monkeypatch.setattr(sys, "argv", ["saliency_train", *given])
    saliency_train.main()


@pytest.mark.slow
def test_from_photos_to_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Voters' stores, a short training, a network that makes masks; damaged photos are left out."""
    monkeypatch.setattr(saliency_train, "start", programs.start)
    (tmp_path / "photos").mkdir()
    image, _ = scene()
    for number in range(6):
        turned = np.roll(image, 7 * number, 1)
        Image.fromarray(turned).save(tmp_path / "photos" / f"{number}.jpg", quality=95)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    (tmp_path / "list.txt").write_text("0.jpg\n1.jpg\n2.jpg\n3.jpg\n4.jpg\nbad.jpg\n")
    words = ("--voters", "mc", "rbd", "--list", str(tmp_path / "list.txt"), *SMALL)
    _run(monkeypatch, tmp_path, *words)
    assert (tmp_path / "out/voters/mc/00000-of-00001.h5").is_file()
    assert "1 photos are left out: bad.jpg: no map by mc, rbd" in capfd.readouterr().out
    assert len(np.load(tmp_path / "out/data/photos.npy")) == 5
    weights = {"weights": str(tmp_path / "out/saliency.onnx")}
    report = write_mask_store(
        tmp_path / "photos", read_options("deepusps", weights, []), tmp_path / "masks", threshold=0.001
    )
    assert report.photos == 6


def test_bad_words_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saliency_train, "start", programs.start)
    (tmp_path / "photos").mkdir()
    for words, message in (
        (("--voters", "mc", "nothing"), "--detector=nothing: there are"),
        (("--voters", "mc", "mc"), "--voters: each once"),
        (("sides=128",), r"sides: unknown key .* \(did you mean side\?\)"),
    ):
        with pytest.raises(UserError, match=message):
            _run(monkeypatch, tmp_path, *words)
    monkeypatch.setattr(saliency_train, "start", lambda *_, **__: '{"batch_size": 4}')
    with pytest.raises(UserError, match="--nproc=3: must divide batch_size=4"):
        _run(monkeypatch, tmp_path, "--nproc", "3")
    assert not (tmp_path / "out").exists()
