"""Data sets the tests share: small, constructed, written once per run."""

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.views.options import PhotometricOptions
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store

PLAIN_LOOK = PhotometricOptions(jitter_p=0, grey_p=0, blur_p=0)
"""No photometric change: what comes out is what was cropped."""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pack(folder: Path, per_shard: int = 16, workers: int = 1, pixels: bool = False) -> Path:
    """folder/photos + folder/masks -> folder/shards, by the tools; pixels: of tiles, in place of geometry."""
    write_mask_store(
        folder / "photos",
        ImportOptions(folder=folder / "masks"),
        folder / "mask_store",
        per_file=32,
        workers=workers,
    )
    photos = folder / "photos" if pixels else None
    write_tile_store(folder / "mask_store", folder / "tile_store", photo_folder=photos, workers=workers)
    write_shards(
        folder / "photos",
        folder / "mask_store",
        folder / "tile_store",
        folder / "shards",
        per_shard=per_shard,
    )
    return folder / "shards"


def save(folder: Path, name: str, photo: np.ndarray, mask: np.ndarray) -> None:
    """One photo (uint8 [H, W, 3] or [H, W]) and its mask (bool [H, W]); flat grey areas survive the JPEG
    exactly."""
    for kind in ("photos", "masks"):
        (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(folder / "photos" / f"{name}.jpg", quality=98, subsampling=0)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")


@pytest.fixture(scope="session")
def textured_pixels(textured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shards with tiles as pixels."""
    folder = tmp_path_factory.mktemp("textured_pixels")
    for kind in ("photos", "masks"):
        (folder / kind).symlink_to(textured.parent / kind)
    return pack(folder, pixels=True)


@pytest.fixture(scope="session")
def textured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 50 noisy colour photos of varied sizes in 3 classes, each with an ellipse as foreground."""
    folder = tmp_path_factory.mktemp("textured")
    for number in range(50):
        rng = np.random.default_rng(number)
        height, width = rng.integers(160, 320, 2)
        y, x = np.mgrid[0:height, 0:width]
        mask = ((y / height - 0.5) / 0.25) ** 2 + ((x / width - 0.45) / 0.2) ** 2 < 1
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        photo = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).copy()
        photo[mask] = photo[mask] // 2 + rng.integers(0, 128, 3, dtype=np.uint8)
        save(folder, f"class{number % 3}/photo{number:02d}", photo, mask)
    return pack(folder)


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 64 photos of 128 x 128: photo i has a grey background of level 2 i and a white square in the
    middle.

    Photos 0 to 3 have an empty mask: their tiles are flagged, never donors.
    """
    folder = tmp_path_factory.mktemp("flat")
    for number in range(64):
        photo = np.full((128, 128), 2 * number, np.uint8)
        mask = np.zeros((128, 128), bool)
        photo[32:96, 32:96] = 255
        mask[32:96, 32:96] = number >= 4
        save(folder, f"photo{number:02d}", photo, mask)
    return pack(folder)


@pytest.fixture
def real_photos() -> Callable[[], Path]:
    """The folder of real ImageNet photos beside the checkout, where there is one; otherwise the test
    skips."""

    def find() -> Path:
        folder = Path(__file__).parents[2] / "shared" / "data" / "imagenet_photos"
        if not folder.is_dir():
            pytest.skip("no real photos beside this checkout")
        return folder

    return find
