"""Masks made elsewhere: which image of a photo is read, and how it lies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers.detectors import iou
from tools.offline.detectors import Photo, read_options
from tools.offline.mask_images import find_image
from tools.offline.photos import open_photo

_CORNER = {1: (0, 1), 2: (0, 0), 3: (1, 0), 4: (1, 1), 5: (1, 0), 6: (1, 1), 7: (0, 1), 8: (0, 0)}
"""Where the stored photo's top right corner is seen, by orientation: bottom?, right?"""


def _imported(
    folder: Path,
    mask: Image.Image,
    suffix: str,
    stored: np.ndarray,
    orientation: int = 1,
    words: Sequence[str] = (),
    **save: object,
) -> np.ndarray:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(folder / "p.jpg", exif=exif)
    for old in folder.glob("m/p.*"):
        old.unlink()
    (folder / "m").mkdir(exist_ok=True)
    mask.save(folder / "m" / f"p{suffix}", **save)
    options = read_options("import", {"folder": str(folder / "m")}, list(words))
    image = np.asarray(open_photo(folder / "p.jpg"))
    photo = Photo("p.jpg", folder / "p.jpg", image, (folder / "p.jpg").stat().st_size, orientation)
    return options.build()([photo])[0]


def test_masks_of_many_kinds_are_read(tmp_path: Path) -> None:
    stored = np.zeros((40, 80, 3), np.uint8)
    mask = np.zeros((40, 80), np.uint8)
    mask[0:20, 40:80] = 255
    wide = Image.fromarray(mask.astype(np.uint16) * 257)
    for image, suffix in (
        (Image.fromarray(mask), ".png"),
        (Image.fromarray(mask > 0), ".png"),
        (Image.fromarray(mask).convert("RGB"), ".jpg"),
        (Image.fromarray(mask).convert("P"), ".png"),
        (wide, ".png"),
        (Image.fromarray(mask).resize((40, 20), Image.Resampling.NEAREST), ".png"),  # half size
        (Image.fromarray(mask).resize((160, 80), Image.Resampling.NEAREST), ".bmp"),
    ):
        found = _imported(tmp_path, image, suffix, stored)
        assert found.shape == (40, 80)
        assert iou(found >= 230, mask > 0) > 0.93


def _corner(saliency: np.ndarray) -> tuple[int, int]:
    """Where the foreground lies: in the bottom half, in the right half."""
    rows, columns = np.nonzero(saliency >= 128)
    return int(rows.mean() > saliency.shape[0] / 2), int(columns.mean() > saliency.shape[1] / 2)


def _top_right(height: int, width: int) -> np.ndarray:
    """A mask of the top right corner, uint8 [H, W]."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 4, -(width // 2) :] = 255
    return mask


@pytest.mark.parametrize("shape", [(40, 80), (40, 40)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_as_is_said(tmp_path: Path, orientation: int, shape: tuple[int, int]) -> None:
    """Of oblong photos and of square ones, at their size and at half of it."""
    stored, seen = np.zeros((*shape, 3), np.uint8), shape if orientation < 5 else shape[::-1]
    for scale in (1, 2):
        mask = Image.fromarray(_top_right(*(side // scale for side in shape)))
        found = _imported(tmp_path, mask, ".png", stored, orientation, ["drawn_on=stored"])
        assert (found.shape, _corner(found)) == (seen, _CORNER[orientation])
        mask = Image.fromarray(_top_right(*(side // scale for side in seen)))
        found = _imported(tmp_path, mask, ".png", stored, orientation, ["drawn_on=upright"])
        assert (found.shape, _corner(found)) == (seen, (0, 1))


@pytest.mark.parametrize("shape", [(40, 80), (40, 40)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_where_a_mask_does_not_show_how_it_lies_it_is_asked_for(
    tmp_path: Path, orientation: int, shape: tuple[int, int]
) -> None:
    stored, mask = np.zeros((*shape, 3), np.uint8), Image.fromarray(_top_right(*shape))
    if orientation == 1 or (orientation >= 5 and shape == (40, 80)):
        assert _corner(_imported(tmp_path, mask, ".png", stored, orientation)) == _CORNER[orientation]
    else:
        with pytest.raises(UserError, match=r"p.png: was it .* give drawn_on=upright or drawn_on=stored"):
            _imported(tmp_path, mask, ".png", stored, orientation)
    for level in (0, 255):  # looks the same either way
        assert (
            _imported(tmp_path, Image.new("L", mask.size, level), ".png", stored, orientation) == level
        ).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_exif_of_a_mask_says_how_it_lies(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for shape in ((40, 80), (40, 40)):
        stored, mask = np.zeros((*shape, 3), np.uint8), Image.fromarray(_top_right(*shape))
        found = _imported(tmp_path, mask, suffix, stored, orientation, exif=exif)
        assert _corner(found) == _CORNER[orientation]
    if orientation >= 5:  # copied onto a mask of the upright photo
        mask = Image.fromarray(_top_right(80, 40))
        with pytest.raises(UserError, match=r"its own EXIF orientation does not make it so; give drawn_on="):
            _imported(tmp_path, mask, suffix, np.zeros((40, 80, 3), np.uint8), orientation, exif=exif)


def test_the_photo_itself_is_no_mask_of_it(tmp_path: Path) -> None:
    Image.new("L", (80, 40), 255).save(tmp_path / "p.jpg")
    photo = Photo(
        "p.jpg", tmp_path / "p.jpg", np.zeros((40, 80, 3), np.uint8), (tmp_path / "p.jpg").stat().st_size
    )
    options = read_options("import", {"folder": str(tmp_path)}, [])
    with pytest.raises(UserError, match=r"p.jpg: is the photo itself"):
        options.build()([photo])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "said"), [(".png", "auto"), (".tif", "auto"), (".tif", "stored")])
def test_a_mask_with_the_photos_own_tag_is_turned_once(
    tmp_path: Path, orientation: int, suffix: str, said: str
) -> None:
    """A square one, of which no shape tells; PIL turns a TIFF as it loads it, and nothing else."""
    mask = np.zeros((40, 40), np.uint8)
    mask[:20, 20:] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((40, 40, 3), np.uint8)
    words = [f"drawn_on={said}"]
    found = _imported(tmp_path, Image.fromarray(mask), suffix, stored, orientation, words, exif=exif)
    assert _corner(found) == _CORNER[orientation]


def test_a_mask_drawn_upright_keeps_its_pixels_whatever_its_tag(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:20, 20:] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    for suffix in (".png", ".tif", ".jpg"):
        found = _imported(
            tmp_path,
            Image.fromarray(mask),
            suffix,
            np.zeros((40, 40, 3), np.uint8),
            3,
            ["drawn_on=upright"],
            exif=exif,
        )
        assert _corner(found) == (0, 1)


@pytest.mark.parametrize("suffix", [".png", ".JPEG", ".Png", ".TIFF", ".Bmp"])
def test_endings_of_masks_are_taken_in_any_case(tmp_path: Path, suffix: str) -> None:
    for name in (f"a{suffix}", "a.b.png", "a.txt"):
        (tmp_path / name).touch()
    assert find_image(tmp_path / "a") == tmp_path / f"a{suffix}"
    assert find_image(tmp_path / "a.b") == tmp_path / "a.b.png"
    assert find_image(tmp_path / "none") is None
    assert find_image(tmp_path / "no folder" / "a") is None
