"""Folders of class folders: what is listed, and that the loader gives it once and in order."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from dali_bgaug.folder import open_folder
from pipelines import LoaderConfig, build_loader
from tests.helpers.sets import image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photos of three classes; photo i is grey of level 30 i."""
    names = ["b/x.jpg", "b/deep/y.JPEG", "a/1.png", "a/2.jpeg", "c c/z.PNG", "c c/a.jpg", "c c/b.jpg"]
    for number, name in enumerate(sorted(names)):
        image(tmp_path / name, (30 * number,) * 3)
    (tmp_path / "readme.txt").write_text("")
    (tmp_path / "b" / "list.csv").write_text("")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_photos_are_listed_in_order(photos: Path) -> None:
    found = open_folder(photos)
    assert found.classes == ["a", "b", "c c"]
    assert found.files == [
        "a/1.png",
        "a/2.jpeg",
        "b/deep/y.JPEG",
        "b/x.jpg",
        "c c/a.jpg",
        "c c/b.jpg",
        "c c/z.PNG",
    ]
    assert found.labels == [0, 0, 1, 1, 2, 2, 2]
    assert found.samples == 7
    before = found.digest
    image(photos / "b" / "x.jpg", (1, 2, 3))
    assert open_folder(photos).digest != before


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_loader_gives_each_once(photos: Path, ranks: int) -> None:
    config = LoaderConfig(
        **{"pipeline": "evaluation", "shards": photos, "batch_size": 6, "crop": {"size": 32}, "resize": 32},
        **{"device": "cpu", "normalise": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}},
    )
    labels, levels = [], []
    for rank in range(ranks):
        with build_loader(config, rank, ranks) as loader:
            for batch in loader:
                labels += batch["label"][batch["valid"]].tolist()
                levels += (batch["image"][batch["valid"]][:, 0, 0, 0] * 255).round().tolist()
    assert labels == [0, 0, 1, 1, 2, 2, 2]
    assert levels == pytest.approx([0, 30, 60, 90, 120, 150, 180], abs=2)


def test_grey_cmyk_and_turned_photos_are_decoded(tmp_path: Path) -> None:
    upright = np.zeros((40, 60), np.uint8)
    upright[:, 30:] = 200  # bright on the right
    (tmp_path / "a").mkdir()
    Image.fromarray(upright).save(tmp_path / "a" / "1.jpg", quality=95)
    Image.fromarray(upright).convert("RGB").convert("CMYK").save(tmp_path / "a" / "2.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be upright
    Image.fromarray(np.rot90(upright)).convert("RGB").save(tmp_path / "a" / "3.jpg", quality=95, exif=exif)
    config = LoaderConfig(
        **{"pipeline": "evaluation", "shards": tmp_path, "batch_size": 3, "crop": {"size": 40}, "resize": 40},
        **{"device": "cpu", "normalise": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}},
    )
    with build_loader(config) as loader:
        [batch] = loader
    levels = 255 * batch["image"]
    assert levels[:, :, :, :15].max() < 12
    assert levels[:, :, :, 25:].min() > 185


def test_bad_folders(photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        UserError, match=r"--test=.*empty: neither packed shards .* nor a folder of class folders"
    ):
        open_folder(empty, "--test")
    with pytest.raises(UserError, match=r"no photos \(.jpg, .*\) in empty; every folder in it is a class"):
        open_folder(photos)
    with pytest.raises(UserError, match=r"does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no manifest.json; pack the shards first"):
        build_loader(LoaderConfig(pipeline="supervised", shards=photos))


def test_a_photo_that_vanished_or_is_damaged_is_named(photos: Path) -> None:
    config = LoaderConfig(pipeline="evaluation", shards=photos, batch_size=4, crop={"size": 32}, device="cpu")
    with build_loader(config) as loader:
        list(loader)
        (photos / "b" / "x.jpg").rename(photos / "gone")
        with pytest.raises(UserError, match=r"(?s)rank 0; these cannot.*b/x.jpg.*No such file"):
            for _ in range(9):  # batches made ahead still have it
                list(loader)
    (photos / "b" / "x.jpg").write_bytes(b"\xff\xd8 cut short")
    with (
        build_loader(config) as loader,
        pytest.raises(UserError, match=r"(?s)be used:\n  .*b/x.jpg cannot be decoded\nreplace"),
    ):
        list(loader)
    with pytest.raises(UserError, match=r"there are no masks to show"):
        build_loader(config, with_sources=True)


def test_exif_blocks_that_contradict_each_other_are_refused(photos: Path) -> None:
    """Decoding them can end the process."""
    path = photos / "b" / "x.jpg"
    data, segments = path.read_bytes(), b""
    for value in (6, 3):
        exif = Image.Exif()
        exif[0x0112] = value
        block = exif.tobytes()
        segments += b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    path.write_bytes(data[:2] + segments + data[2:])
    config = LoaderConfig(pipeline="evaluation", shards=photos, batch_size=4, crop={"size": 32}, device="cpu")
    with (
        build_loader(config) as loader,
        pytest.raises(UserError, match=r"(?s)be used:\n  .*b/x.jpg cannot be decoded\nreplace"),
    ):
        list(loader)
