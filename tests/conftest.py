"""Data sets the tests share: small, constructed, written once per run."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.views.cpu import CpuRenderer
from tests.helpers.shards import pack, save

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # several workers share the CPUs, and processes forked from a server


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the CPU's kernels once, before several processes would at the same time."""
    if not hasattr(session.config, "workerinput"):
        CpuRenderer(1, False).close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Modules stay: they need not be looked at for garbage again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    """The server that tests' processes are forked from, if there are such tests."""
    if processes := sys.modules.get("tests.helpers.processes"):
        processes.serve()


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
