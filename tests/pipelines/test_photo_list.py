"""Files of a folder in any order, and photos shown as the usual reference shows them: PIL and torchvision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image

from dali_bgaug.errors import UnusablePhotos
from dali_bgaug.folder import list_photos
from pipelines import LoaderConfig, build_loader

FILES = ["turned.jpg", "rgba.png", "grey.jpg", "cmyk.jpg", "contradictory.jpg", "tall.png", "frame.png"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise under blobs in every mode; all but `frame` have a red border of 2 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(FILES):
        height, width = (93, 61) if name == "tall.png" else (57, 80)
        rng = np.random.default_rng(number)
        pixels = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((6, 6, 1))).astype(np.uint8)
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height)))
        if name != "frame.png":
            pixels = np.pad(pixels[2:-2, 2:-2], ((2, 2), (2, 2), (0, 0)))
            pixels[:2, :, 0] = pixels[-2:, :, 0] = pixels[:, :2, 0] = pixels[:, -2:, 0] = 255
        image = Image.fromarray(pixels)
        if name == "rgba.png":
            image.putalpha(Image.fromarray(pixels[..., 0]))
        image = image.convert({"grey.jpg": "L", "cmyk.jpg": "CMYK"}.get(name, image.mode))
        image.save(folder / name, **({"quality": 90} if name.endswith("jpg") else {}))
    for name, values in (("turned.jpg", [6]), ("contradictory.jpg", [6, 3])):
        data, segments = (folder / name).read_bytes(), b""
        for value in values:
            exif = Image.Exif()
            exif[0x0112] = value
            block = exif.tobytes()
            segments += b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
        (folder / name).write_bytes(data[:2] + segments + data[2:])
    return folder


def _config(folder: Path, **values: Any) -> LoaderConfig:
    return LoaderConfig(
        **{"pipeline": "evaluation", "shards": folder, "batch_size": 3, "device": "cpu", "threads": 2},
        **{"normalise": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}, "orientation": "ignore"},
        **values,
    )


def _levels(config: LoaderConfig, files: list[str], labels: list[int]) -> tuple[list[int], np.ndarray]:
    """Labels and pixels (0 to 255, [n, H, W, 3]) that a loader gives of files."""
    found, images = [], []
    with build_loader(config, data=list_photos(config.shards, files, labels)) as loader:
        for batch in loader:
            found += batch["label"][batch["valid"]].tolist()
            images.append(batch["image"][batch["valid"]])
    return found, 255 * torch.cat(images).movedim(1, -1).numpy()


def _reference(path: Path, size: int, resize: int | None, border: int) -> np.ndarray:
    """What `ImageFolder`, Resize and CenterCrop make of a photo."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    image = image.crop((border, border, image.width - border, image.height - border))
    return np.asarray(F.center_crop(F.resize(image, resize) if resize else image, size)).astype(float)


def test_files_come_in_the_order_given_with_their_numbers(photos: Path) -> None:
    order = ["tall.png", "grey.jpg", "frame.png", "rgba.png"]
    labels, images = _levels(_config(photos, crop={"size": 32}, resize=36), order, [70000, 3, 0, 2])
    assert labels == [70000, 3, 0, 2]
    for image, name in zip(images, order, strict=True):
        assert np.abs(image - _reference(photos / name, 32, 36, 0)).max() <= 1, name
    listed = list_photos(photos, order, [0, 1, 2, 3])
    assert listed.digest != list_photos(photos, order[::-1], [0, 1, 2, 3]).digest
    assert listed.digest == list_photos(photos, order, [5, 6, 7, 8]).digest


@pytest.mark.parametrize("resize", [32, 48, None])
@pytest.mark.parametrize("border", [0, 2])
def test_photos_are_shown_as_the_reference_shows_them(photos: Path, resize: int | None, border: int) -> None:
    """Antialiased (shrunk by up to three), in every mode, EXIF orientation ignored; without a resize the
    pixels are the file's."""
    config = _config(photos, crop={"size": 32}, resize=resize, border=border)
    labels, images = _levels(config, FILES, list(range(len(FILES))))
    assert labels == list(range(7))
    for image, name in zip(images, FILES, strict=True):
        difference = np.abs(image - _reference(photos / name, 32, resize, border))
        if resize is None:
            assert difference.max() <= 0.01, name
            continue
        assert difference[1:-1, 1:-1].max() <= 1, (name, difference.max())  # PIL rounds to whole levels twice
        # At a photo's own edge the filter goes on with the outermost pixel, where PIL's ends.
        assert difference.max() <= 8, (name, difference.max())
        assert difference.mean() <= 0.5, name


def test_the_filter_does_not_see_the_border(photos: Path, tmp_path: Path) -> None:
    """As if the photo had been stored without it: to the bit."""
    with Image.open(photos / "rgba.png") as image:
        image.convert("RGB").crop((2, 2, 78, 55)).save(tmp_path / "rgba.png")
    shown = [
        _levels(_config(folder, crop={"size": 24}, resize=24, border=border), ["rgba.png"], [0])[1]
        for folder, border in ((photos, 2), (tmp_path, 0), (photos, 0))
    ]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert np.abs(shown[0] - shown[2]).max() > 20


def test_orientation_is_applied_unless_ignored(photos: Path) -> None:
    config = _config(photos, crop={"size": 57}, resize=57)
    [stored] = _levels(config, ["turned.jpg"], [0])[1]
    [upright] = _levels(config.replaced(orientation="apply"), ["turned.jpg"], [0])[1]
    assert np.abs(np.rot90(stored, -1) - upright).max() <= 0.01
    with pytest.raises(UnusablePhotos, match="contradictory.jpg cannot be decoded"):
        _levels(config.replaced(orientation="apply"), ["contradictory.jpg"], [0])


def test_a_photo_that_cannot_be_shown_is_named(photos: Path, tmp_path: Path) -> None:
    """Its path is in the error, besides the message."""
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8 cut short")
    (tmp_path / "empty.jpg").touch()
    Image.new("RGB", (40, 35)).save(tmp_path / "small.png")
    Image.new("RGB", (36, 36)).save(tmp_path / "good.png")
    config = _config(tmp_path, crop={"size": 32}, resize=None, border=2)
    lines = {
        "damaged.jpg": "damaged.jpg cannot be decoded",
        "empty.jpg": "empty.jpg: No such file, or an empty or forbidden one",
        "gone.jpg": "gone.jpg: No such file, or an empty",
        "small.png": "small.png has 40 x 35 pixels, fewer than the 36 a side of crop and border",
    }
    for name, line in lines.items():
        with pytest.raises(UnusablePhotos, match=line) as caught:
            _levels(config, [name, "good.png"], [0, 1])
        assert list(caught.value.reasons) == [str(tmp_path / name)]
    names = ["damaged.jpg", "small.png", "good.png"]
    with pytest.raises(UnusablePhotos) as caught:  # of a batch all at once
        _levels(config, names, [0, 1, 2])
    assert set(caught.value.reasons) == {str(tmp_path / name) for name in names[:2]}
    assert _levels(config, ["good.png"], [4])[0] == [4]


@pytest.mark.parametrize("values", [{"resize": None}, {"border": 1}, {"orientation": "ignore"}])
def test_only_evaluation_shows_photos_otherwise(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only evaluation can go without a resize"):
        LoaderConfig(pipeline="supervised", shards=Path("x"), **values)


def test_what_was_recorded_before_these_options_is_still_equal() -> None:
    """They are written only where they are not the default."""
    before = LoaderConfig(pipeline="evaluation", shards=Path("x"))
    assert "border" not in before.model_dump()
    assert "orientation" not in before.model_dump_json()
    assert before.model_dump()["resize"] == 256
    other = before.replaced(border=2, orientation="ignore", resize=None)
    assert {"border": 2, "orientation": "ignore", "resize": None}.items() <= other.model_dump().items()
    assert LoaderConfig.model_validate_json(other.model_dump_json()) == other
