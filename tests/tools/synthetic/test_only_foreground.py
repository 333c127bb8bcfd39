"""Copies without background: pixels, orientation, what is left out, interruptions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers.shards import save
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.synthetic import only_foreground
from tools.synthetic.only_foreground import make_only_foreground, read_colour


def scene(width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A photo of 64 rows, dark before light grey, and its mask, rows 16 to 39 of columns 8 to 47."""
    mask = np.zeros((64, width), bool)
    mask[16:40, 8:48] = True
    return np.where(mask, 40, 200).astype(np.uint8), mask


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of photos of two classes with their mask store: one turned by EXIF, one without foreground, one
    damaged, one all foreground."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("ant/1", "ant/2", "bee/deep/3", "bee/turned"):
        save(folder, name, *scene())
    photo, mask = scene()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(photo).save(folder / "photos/bee/turned.jpg", quality=98, subsampling=0, exif=exif)
    Image.fromarray(np.rot90(mask, -1).astype(np.uint8) * 255).save(folder / "masks/bee/turned.png")
    save(folder, "ant/empty", photo, np.zeros_like(mask))
    save(folder, "bee/whole", photo, np.ones_like(mask))
    (folder / "photos/ant/cut.jpg").write_bytes((folder / "photos/ant/1.jpg").read_bytes()[:300])
    masks = ImportOptions(folder=folder / "masks")
    write_mask_store(folder / "photos", masks, folder / "store", per_file=3)
    return folder


def pixels(out: Path, name: str) -> np.ndarray:
    with Image.open(out / f"{name}.png") as image:
        assert image.mode == "RGB" and image.format == "PNG"
        return np.asarray(image)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("colour", "name"), [((0, 0, 0), "black"), ((124, 116, 104), "mean")])
def test_pixels(made: Path, tmp_path: Path, colour: tuple[int, int, int], name: str) -> None:
    """The turned photo's copy lies as its file does: with the mask that was drawn for it upright."""
    make_only_foreground(made / "photos", made / "store", tmp_path / name, colour)
    mask = scene()[1]
    for copy in ("ant/1", "ant/2", "bee/deep/3", "bee/turned"):
        found = pixels(tmp_path / name, copy)
        assert found.shape == (64, 128, 3)
        assert (found[mask] == 40).all() and (found[~mask] == colour).all()
    assert np.array_equal(pixels(tmp_path / name, "bee/whole")[..., 0], scene()[0])


def test_photos_pixels_are_kept(textured: Path, tmp_path: Path) -> None:
    """Noisy photos of other sizes than the stored map: foreground is to the bit what a decoder makes."""
    folder = textured.parent
    write_mask_store(folder / "photos", ImportOptions(folder=folder / "masks"), tmp_path / "store")
    result = make_only_foreground(folder / "photos", tmp_path / "store", tmp_path / "out")
    assert (result["photos"], result["left_out"]) == (50, [])
    for key in ("class0/photo00", "class1/photo07", "class2/photo44"):
        found = pixels(tmp_path / "out", key)
        with Image.open(folder / "photos" / f"{key}.jpg") as image:
            photo = np.asarray(image.convert("RGB"))
        with Image.open(folder / "masks" / f"{key}.png") as image:
            mask = np.asarray(image) > 0
        kept = found.any(axis=2)
        assert np.array_equal(found[kept], photo[kept])
        assert (kept ^ mask).mean() < 0.02  # of a map of 256 x 256


def test_layout_record_and_what_is_left_out(made: Path, tmp_path: Path) -> None:
    result = make_only_foreground(made / "photos", made / "store", tmp_path / "out", (1, 2, 3))
    copies = ["ant/1.png", "ant/2.png", "bee/deep/3.png", "bee/turned.png", "bee/whole.png"]
    assert sorted(contents(tmp_path / "out")) == sorted([*copies, "only_foreground.json"])
    assert json.loads((tmp_path / "out/only_foreground.json").read_text()) == result
    assert result.pop("masks_made_by")["detector"] == "import"
    assert len(result.pop("masks")) == 64
    assert result == {
        "version": 1,
        "colour": [1, 2, 3],
        "photos": 5,
        "counts": {"ant": 2, "bee": 3},
        "left_out": [["ant/cut.jpg", "truncated or damaged"], ["ant/empty.jpg", "no foreground"]],
    }


@pytest.mark.slow
def test_workers_do_not_matter(made: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        out = tmp_path / str(workers)
        make_only_foreground(made / "photos", made / "store", out, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_interrupted_copies_are_completed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_only_foreground(made / "photos", made / "store", tmp_path / "whole")
    written: list[Path] = []
    write_png = only_foreground.write_png

    def fail_at_third(path: Path, image: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_png(path, image)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(only_foreground, "write_png", fail_at_third)
        with pytest.raises(KeyboardInterrupt):
            make_only_foreground(made / "photos", made / "store", out)
    assert len(contents(out)) == 3
    with pytest.raises(UserError, match=r"unfinished: made with colour=\[0, 0, 0\], asked for is colour=\[9"):
        make_only_foreground(made / "photos", made / "store", out, (9, 9, 9))
    make_only_foreground(made / "photos", made / "store", out)
    assert contents(out) == contents(tmp_path / "whole")


def test_masks_of_other_photos_are_refused(made: Path, tmp_path: Path) -> None:
    """A photo more, a photo fewer, a photo that changed."""
    for kind, change in (
        ("more", lambda photos: (photos / "bee/new.jpg").write_bytes((photos / "ant/1.jpg").read_bytes())),
        ("fewer", lambda photos: (photos / "ant/2.jpg").unlink()),
        ("other", lambda photos: Image.new("RGB", (128, 64)).save(photos / "ant/2.jpg")),
    ):
        photos = tmp_path / kind
        for name, data in contents(made / "photos").items():
            (photos / name).parent.mkdir(parents=True, exist_ok=True)
            (photos / name).write_bytes(data)
        change(photos)
        message = {
            "more": r"--masks=\S+: not made from the photos in --photos=\S+: 1 are .* \(bee/new.jpg\); make",
            "fewer": r"not made from the photos in --photos=\S+: 1 are in one .* \(ant/2.jpg\); make",
            "other": r"1 photos stop this:\n  \S+ant/2.jpg: \d+ bytes, but \d+ when its mask was made;",
        }[kind]
        with pytest.raises(UserError, match=message):
            make_only_foreground(photos, made / "store", tmp_path / "out")


def test_colours() -> None:
    assert read_colour("black") == (0, 0, 0)
    assert read_colour("grey") == (128, 128, 128)
    assert read_colour("124,116,104") == (124, 116, 104)
    for text in ("white", "1,2", "1,2,256", "1,2,-3", "#ffffff"):
        with pytest.raises(UserError, match=f"--colour={text}: must be black, grey, or R,G,B of 0 to 255"):
            read_colour(text)


def test_command_line(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["--photos", str(made / "photos"), "--masks", str(made / "store"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["only_foreground", *words, "--colour", "grey", "--workers", "1"])
    only_foreground.main()
    *_, cut, empty, summary, measure = capsys.readouterr().out.splitlines()
    assert (cut, empty) == ("  ant/cut.jpg: truncated or damaged", "  ant/empty.jpg: no foreground")
    assert summary.startswith("5 photos of 2 classes without background, 2 left out")
    assert f"train.evaluate robustness --checkpoint RUN --set only-fg={out}" in measure
    assert (pixels(out, "ant/1")[0, 0] == 128).all()
