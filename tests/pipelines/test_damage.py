"""Shards damaged after packing, or lost, and errors that are not theirs: what the loader says."""

import re
import shutil
from pathlib import Path

import pytest

from dali_bgaug import batches
from dali_bgaug.errors import UserError
from dali_bgaug.shard_index import locate_samples
from dali_bgaug.shards import open_shards, write_manifest
from pipelines import LoaderConfig, build_loader


def _config(shards: Path, **values: object) -> LoaderConfig:
    defaults = {"batch_size": 8, "device": "cpu", "threads": 2, "crop": {"size": 32, "fg_min": 0.1}}
    return LoaderConfig(shards=shards, **{**defaults, "background": {"kind": "swaps"}, **values})


def _damage(folder: Path, line: int, start: int, data: bytes) -> tuple[Path, str]:
    """Overwrite part of a photo in the first shard; returns the shard and the key."""
    words = (folder / "shard-00000.idx").read_text().splitlines()[line].split(" ")
    with (folder / "shard-00000.tar").open("r+b") as file:
        file.seek(int(words[1]) + start)
        file.write(data)
    return folder / "shard-00000.tar", words[3].partition(".")[0]


@pytest.mark.parametrize(("depth", "batch", "prefetch"), [(2, 8, 2), (1, 48, 2), (1, 4, 1), (8, 4, 8)])
def test_a_damaged_photo_is_named(
    textured: Path, tmp_path: Path, depth: int, batch: int, prefetch: int
) -> None:
    """In a large batch, too, where DALI's decoder would end the process, and with many batches read ahead."""
    folder = shutil.copytree(textured, tmp_path / "shards")
    shard, key = _damage(folder, 3, 0, b"\0" * 500)
    with pytest.raises(UserError, match=r"checksum is not the one in manifest.json"):
        build_loader(_config(folder))
    config = _config(folder, verify=False, reader_depth=depth, batch_size=batch, prefetch=prefetch, seed=1)
    with build_loader(config) as loader:
        with pytest.raises(UserError, match=rf"{shard}: {key}: jpg cannot be decoded"):
            for _ in loader:
                pass
        with pytest.raises(RuntimeError, match="closed"):
            next(iter(loader))
        with pytest.raises(RuntimeError, match="closed"):
            loader.state_dict()


@pytest.mark.parametrize("label", [b"000009", b"999999", b"cat   ", b"-00001", b"1.0000"])
def test_a_label_that_is_no_class_is_named(textured: Path, tmp_path: Path, label: bytes) -> None:
    folder = shutil.copytree(textured, tmp_path / "shards")
    classes = len(open_shards(folder).classes)
    assert classes <= 9
    key, members = list(locate_samples(folder / "shard-00000.idx"))[3]
    with (folder / "shard-00000.tar").open("r+b") as file:
        file.seek(members["cls"][0])
        file.write(label)
    message = f"shard-00000.tar: {key}: cls is {label!r}, no number of one of {classes} classes"
    with (
        build_loader(_config(folder, verify=False)) as loader,
        pytest.raises(UserError, match=re.escape(message)),
    ):
        list(loader)


def test_an_error_of_our_own_is_not_blamed_on_the_shards(
    textured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(*_: object) -> None:
        raise KeyError("a mistake")

    with build_loader(_config(textured)) as loader:
        monkeypatch.setattr(batches, "plan", plan)
        with pytest.raises(
            RuntimeError, match="epoch 0, batch 0, rank 0; what it was reading is good"
        ) as info:
            list(loader)
    assert isinstance(info.value.__cause__, KeyError)
    assert not isinstance(info.value, UserError)


def test_a_shard_lost_in_mid_run_is_named(textured: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(textured, tmp_path / "shards")
    config = _config(folder, shuffle_buffer=1, prefetch=1, reader_depth=1)
    with build_loader(config) as loader, pytest.raises(UserError, match=r"shard-0000\d.tar: missing, but"):
        for number, _ in enumerate(iter(loader)):
            if number == 0:
                for shard in folder.glob("*.tar"):
                    shard.unlink()
        list(loader)


def test_a_photo_that_claims_too_many_pixels_is_refused(textured: Path, tmp_path: Path) -> None:
    """By the limit that its masks were made with; decoding it would take all memory."""
    folder = shutil.copytree(textured, tmp_path / "shards")
    manifest = open_shards(folder)
    key, members = next(iter(locate_samples(folder / "shard-00000.idx")))
    sof = (folder / "shard-00000.tar").read_bytes().index(b"\xff\xc0", members["jpg"][0])
    with (folder / "shard-00000.tar").open("r+b") as file:
        file.seek(sof + 5)
        file.write((50_000).to_bytes(2, "big") * 2)
    message = rf"{key}: jpg has 50000 x 50000 pixels, more than 100,000,000"
    with build_loader(_config(folder, verify=False)) as loader, pytest.raises(UserError, match=message):
        list(loader)
    limited = manifest.replaced(options=manifest.options | {"max_pixels": 64 * 48 - 1}, digest="")
    write_manifest(folder, limited)
    assert open_shards(folder, verify=False).max_pixels == 64 * 48 - 1
    message = r"jpg has \d+ x \d+ pixels, more than 3,071"
    with build_loader(_config(folder, verify=False)) as loader, pytest.raises(UserError, match=message):
        list(loader)
