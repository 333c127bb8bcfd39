"""What the image of a mask means, by its kind and by what is said of the whole folder."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tools.offline.mask_images import read_grey

RAMP = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
RED = Image.new("RGB", (3, 2), (200, 30, 30))


def _read(folder: Path, image: Image.Image, suffix: str = ".png", **options: object) -> list[list[int]]:
    image.save(folder / f"mask{suffix}")
    found = read_grey(folder / f"mask{suffix}", **options)
    assert found.mode == "L"
    return np.asarray(found).tolist()


def _with_alpha(mode: str, colour: object, alpha: np.ndarray) -> Image.Image:
    image = Image.new(mode, alpha.shape[::-1], colour)
    image.putalpha(Image.fromarray(alpha))
    return image


def _palette(transparency: bytes | int) -> Image.Image:
    """Six indices, all of them white."""
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), mode="P")
    image.putpalette([255] * 18)
    image.info["transparency"] = transparency
    return image


# --- transparency


@pytest.mark.parametrize(
    "image",
    [
        _with_alpha("RGB", (255, 255, 255), RAMP),
        _with_alpha("RGB", (0, 0, 0), RAMP),
        _with_alpha("RGB", (200, 30, 30), RAMP),
        _with_alpha("L", 255, RAMP),
        _with_alpha("L", 0, RAMP),
        _palette(RAMP.tobytes()),
    ],
    ids=["white", "black", "cut-out", "LA white", "LA black", "palette"],
)
def test_where_alpha_varies_it_is_the_mask(tmp_path: Path, image: Image.Image) -> None:
    assert _read(tmp_path, image) == RAMP.tolist()
    assert _read(tmp_path, image, channel="alpha") == RAMP.tolist()


def test_one_transparent_index_of_a_palette_is_background(tmp_path: Path) -> None:
    assert _read(tmp_path, _palette(4)) == [[255, 255, 255], [255, 0, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_masks_drawn_in_grey_may_be_opaque(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    assert _read(tmp_path, image) == RAMP.tolist()
    assert _read(tmp_path, image, channel="alpha") == [[255] * 3] * 2


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("level", [0, 128])
def test_grey_of_one_transparency_is_asked_for(tmp_path: Path, mode: str, level: int) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(level)
    with pytest.raises(UserError, match=rf"mask.png: grey levels.* \({level} of 255\); .*channel=grey"):
        _read(tmp_path, image)
    assert _read(tmp_path, image, channel="grey") == RAMP.tolist()
    assert _read(tmp_path, image, channel="alpha") == [[level] * 3] * 2


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (200, 30, 30)), ("RGB", (255, 255, 255)), ("L", 0)])
def test_a_cut_out_of_nothing_has_no_foreground(tmp_path: Path, mode: str, colour: object) -> None:
    image = _with_alpha(mode, colour, np.zeros((2, 3), np.uint8))
    assert _read(tmp_path, image) == [[0] * 3] * 2


def test_alpha_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mask.png: has no transparency"):
        _read(tmp_path, Image.fromarray(RAMP), channel="alpha")


# --- colour


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *product([".png"], ["1", "L", "P", "RGB"]),
        *product([".tif"], ["1", "L", "P", "RGB", "CMYK"]),
        *product([".jpg"], ["1", "L", "RGB", "CMYK"]),
    ],
)
def test_black_and_white_is_read_in_all_modes(tmp_path: Path, mode: str, suffix: str) -> None:
    mask = np.repeat([0, 255], 8)[None].repeat(8, axis=0).astype(np.uint8)
    found = np.array(_read(tmp_path, Image.fromarray(mask).convert(mode), suffix))
    assert np.abs(found - mask).max() <= 2


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *product([".png", ".tif", ".webp"], ["RGB", "RGBA", "P"]),
        *product([".jpg"], ["RGB", "CMYK"]),
        (".tif", "CMYK"),
    ],
)
def test_images_in_colour_are_refused(tmp_path: Path, mode: str, suffix: str) -> None:
    """A photo that lies where its mask should be; a map of classes; a cut-out on a plain ground."""
    image = Image.new("RGB", (32, 32), "white")
    image.paste((200, 30, 30), (4, 4, 20, 20))
    with pytest.raises(UserError, match=rf"mask{suffix}: an image in colour, no mask"):
        _read(tmp_path, image.convert(mode), suffix)
    grey = np.array(_read(tmp_path, image.convert(mode), suffix, channel="grey"))
    assert abs(grey[0, 0] - 255) <= 12
    assert abs(grey[12, 12] - 81) <= 12


def test_a_file_of_several_frames_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(RAMP), Image.fromarray(RAMP[::-1].copy())]
    pages[0].save(tmp_path / "mask.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=r"mask.tif: holds 2 frames"):
        read_grey(tmp_path / "mask.tif")


# --- scale


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("highest", [250, 255, 256, 65535])
def test_white_of_16_bits_is_65535_whatever_is_in_a_file(tmp_path: Path, highest: int, suffix: str) -> None:
    values = np.array([[0, highest]], np.uint16)
    expected = {250: 1, 255: 1, 256: 1, 65535: 255}[highest]
    assert _read(tmp_path, Image.fromarray(values), suffix) == [[0, expected]]


@pytest.mark.parametrize(
    ("kind", "highest"), [*product([np.float32, np.int32], [1, 200, 255, 60000]), (np.float32, 0.8)]
)
def test_floats_and_long_numbers_have_the_scale_that_is_given(
    tmp_path: Path, kind: type, highest: float
) -> None:
    image = Image.fromarray(np.array([[0, highest]], kind))
    with pytest.raises(UserError, match=r"mask.tif: .* do not say what white is; give scale=1, scale=255"):
        _read(tmp_path, image, ".tif")
    white = 1 if highest <= 1 else 255 if highest <= 255 else 65535
    expected = round(255 * float(kind(highest)) / white)
    assert _read(tmp_path, image, ".tif", scale=white) == [[0, expected]]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("value", [2, 200])
def test_values_beyond_the_given_scale_are_an_error(tmp_path: Path, kind: type, value: int) -> None:
    image = Image.fromarray(np.array([[0, value]], kind))
    with pytest.raises(UserError, match=rf"mask.tif: holds 0 to {value}, but white is 1; give scale="):
        _read(tmp_path, image, ".tif", scale=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1])
def test_floats_that_are_no_saliency_are_an_error(tmp_path: Path, value: float) -> None:
    image = Image.fromarray(np.array([[0, value]], np.float32))
    with pytest.raises(UserError, match=r"mask.tif: holds .*, but white is 1"):
        _read(tmp_path, image, ".tif", scale=1)


def test_floats_may_overshoot_a_little(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[-0.05, 0.2, 1.05]], np.float32))
    assert _read(tmp_path, image, ".tif", scale=1) == [[0, 51, 255]]


def test_masks_of_zeros_and_ones_are_read_if_that_is_said(tmp_path: Path) -> None:
    for kind in (np.uint8, np.uint16):
        image = Image.fromarray(np.array([[0, 1]], kind))
        assert _read(tmp_path, image, scale=1) == [[0, 255]]
    assert _read(tmp_path, Image.fromarray(np.array([[False, True]])), scale=255) == [[0, 255]]
    with pytest.raises(UserError, match=r"mask.png: has no levels above 255, but scale=65535"):
        _read(tmp_path, Image.fromarray(RAMP), scale=65535)


def test_no_damage_of_a_mask_is_read_as_another_mask(tmp_path: Path) -> None:
    """Flipped, zeroed and random bytes: refused, or the same mask."""
    rng, path, refused = np.random.default_rng(0), tmp_path / "mask.png", 0
    y, x = np.mgrid[:90, :120]
    Image.fromarray((255 * ((y - 45) ** 2 + (x - 60) ** 2 < 900)).astype(np.uint8)).save(path)
    whole, mask = path.read_bytes(), np.asarray(read_grey(path))
    for trial in range(300):
        data, start = bytearray(whole), int(rng.integers(len(whole)))
        if trial % 3 == 0:
            data[start] ^= 1 << int(rng.integers(8))
        else:
            count = len(data[start : start + 8])
            data[start : start + 8] = rng.bytes(count) if trial % 3 == 1 else bytes(count)
        path.write_bytes(data)
        try:
            found = np.asarray(read_grey(path))
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(found, mask)
    assert refused > 200
