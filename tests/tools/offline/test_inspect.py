"""What the inspector says of stores and shards, whole, unfinished and damaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug import shards, stores
from dali_bgaug.errors import UserError
from tests.helpers import programs
from tests.helpers.shards import save
from tools.offline.detectors.imported import ImportOptions
from tools.offline.inspect import inspect
from tools.offline.masks import write_mask_store
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos whose foreground is a quarter, a thirteenth without any, a fourteenth that is none."""
    folder = tmp_path_factory.mktemp("packed")
    for number in range(14):
        photo = np.random.default_rng(number).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        mask = np.zeros((64, 96), bool)
        mask[0:32, 0:48] = number < 12
        save(folder, f"c{number % 2}/p{number:02d}", photo, mask)
    (folder / "photos" / "c1" / "p13.jpg").write_bytes(b"")
    out = folder / "out"
    masks = ImportOptions(folder=folder / "masks")
    write_mask_store(folder / "photos", masks, out / "masks", per_file=5)
    write_tile_store(out / "masks", out / "tiles")
    write_shards(folder / "photos", out / "masks", out / "tiles", out / "shards", per_shard=6)
    return out


def test_everything_in_a_folder_is_described(packed: Path) -> None:
    text = programs.run("tools.inspect", str(packed), "--verify", "--count", "5").stdout
    for line in (
        f"{packed / 'masks'}: mask store",
        "13 photos in 3 files",
        '"detector": "import"',
        "short side 64 to 64, median 64, long side 96 to 96, median 96 pixels",
        "flags: 1 empty, 0 without a usable background strip",
        "left out: 1 (1 empty file)",
        "foreground's share of 13 photos, mean 0.231:",
        "  0.2-0.3       12 ########################################",
        "  0.0-0.1        1 ###",
        '"rule": "only-bg-t"',
        "13 photos in 3 shards",
        "verified: every shard has the checksum that manifest.json says",
        "donors of backgrounds: 12",
        "2 classes, 6 to 7 photos each (in what was read)",
        "verified: every file and every map in it has its checksum",
        "verified: every file and every tile in it has its checksum",
        "verified: the training decoder decodes all 13 images",
        "verified: every tile lies in its photo",
    ):
        assert line in text
    for name in ("masks", "shards"):
        with Image.open(packed / f"{name}-inspect.png") as image:
            assert image.width > 800


def test_an_unfinished_store_is_described_as_such(packed: Path, tmp_path: Path) -> None:
    for name in ("masks", "tiles", "shards"):
        (tmp_path / name).mkdir()
    for kind in ("masks", "tiles"):
        path = packed / kind / stores.file_name(0, 3)
        (tmp_path / kind / path.name).write_bytes(path.read_bytes())
    (tmp_path / "shards" / "shard-00000.tar").write_bytes(b"")
    text = "\n".join(inspect(tmp_path))
    assert text.count("5 photos in 1 file of 3: unfinished") == 2
    assert "unfinished: 1 shards, no manifest.json" in text


def test_damage_is_found(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    stores.write_tiles(
        tmp_path / "tiles" / stores.file_name(0, 1), [b"no"], ["k"], np.zeros(1), {"rule": "x"}, "s"
    )
    with pytest.raises(UserError, match=r"00000-of-00001.h5: k cannot be decoded \(1 of 1\)"):
        inspect(tmp_path / "tiles", verify=True)
    (tmp_path / "shards").mkdir()
    for path in (packed / "shards").iterdir():
        (tmp_path / "shards" / path.name).write_bytes(path.read_bytes())
    tar = tmp_path / "shards" / shards.read_manifest(tmp_path / "shards").shards[0].name
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    inspect(tmp_path / "shards")
    with pytest.raises(UserError, match=r"shard-00000.tar: its checksum"):
        inspect(tmp_path / "shards", verify=True)


def test_a_tile_beyond_its_photo_is_found(packed: Path, tmp_path: Path) -> None:
    manifest = shards.read_manifest(packed / "shards")
    samples = list(shards.read_samples(packed / "shards", manifest.shards[0]))
    tile = np.array([0, 0, 35, 51, 0, 51, 64, 46], np.int32)  # the last column is the 97th of 96
    shard = shards.write_shard(tmp_path, "shard-00000", [samples[0]._replace(tile=tile)])
    shards.write_manifest(tmp_path, manifest.model_copy(update={"samples": 1, "shards": [shard]}))
    inspect(tmp_path)
    message = rf"{samples[0].key}.jpg: its tile \[0, 0, 35, 51, 0, 51, 64, 46\] reaches beyond its 96x64"
    with pytest.raises(UserError, match=message):
        inspect(tmp_path, verify=True)


def test_photos_damaged_inside_are_counted(packed: Path, tmp_path: Path) -> None:
    manifest = shards.read_manifest(packed / "shards")
    shutil.copytree(packed / "shards", tmp_path / "copy")
    shards.write_manifest(
        tmp_path / "copy", manifest.model_copy(update={"suspicious": ["a/x.jpg", "b/y.jpg"]})
    )
    assert "  suspicious: 2 damaged inside, e.g. a/x.jpg" in inspect(tmp_path / "copy")


def test_what_is_none_of_these(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"DIR=.*: neither it nor a folder in it is"):
        inspect(tmp_path)
    with pytest.raises(UserError, match=r"DIR=.*nowhere: does not exist"):
        inspect(tmp_path / "nowhere")
