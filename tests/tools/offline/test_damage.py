"""Damage inside JPEGs that decoders forgive: where it is found, and what packing makes of it."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug import shards
from dali_bgaug.decoding import Decoder
from tests.helpers.shards import save
from tools.offline import damage
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.report import Report
from tools.offline.shard_photos import PhotoOptions
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store

EARLY = "Corrupt JPEG data: premature end of data segment"
END = b"\xff\xd9"


def _photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def _jpeg(mode: str = "RGB", **options: object) -> bytes:
    Image.fromarray(_photo()).convert(mode).save(buffer := io.BytesIO(), "JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder()


def find_damage(data: bytes, decoder: Decoder) -> str:
    """What is found once it is decoded."""
    decoder.decode(data)
    return damage.find_damage(data, decoder.warning)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_rows": 1}],
    ids=["plain", "progressive", "restarts"],
)
def test_whole_photos_are_not_suspected(decoder: Decoder, mode: str, options: dict[str, object]) -> None:
    data = _jpeg(mode, **options)
    assert find_damage(data, decoder) == ""
    assert find_damage(data + b"what a camera appends", decoder) == ""


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    "damaged",
    [
        lambda data: data[: len(data) // 2] + END,
        lambda data: data[: len(data) * 49 // 50] + END,
    ],
    ids=["half", "nearly whole"],
)
def test_photos_that_end_early(
    decoder: Decoder, damaged: Callable[[bytes], bytes], progressive: bool
) -> None:
    data = damaged(_jpeg(progressive=progressive))
    assert decoder.decode(data) is not None
    assert find_damage(data, decoder) == EARLY
    assert find_damage(_jpeg(), decoder) == ""  # of the last photo alone


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("filling", [bytes(512), b"of another file" * 34], ids=["zeros", "other bytes"])
def test_sectors_that_were_overwritten(decoder: Decoder, filling: bytes, progressive: bool) -> None:
    data = _jpeg(progressive=progressive)
    half = len(data) // 2
    damaged = data[:half] + filling + data[half + len(filling) :]
    assert decoder.decode(damaged) is not None
    assert find_damage(damaged, decoder).startswith("Corrupt JPEG data: ")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_progressive_photos_without_their_later_scans(decoder: Decoder, mode: str) -> None:
    data = _jpeg(mode, progressive=True)
    scans = [place for place in range(len(data)) if data.startswith(b"\xff\xda", place)]
    assert len(scans) == {"L": 6, "RGB": 10}[mode]
    for scan in scans[1:]:
        cut = data[: data.rindex(b"\xff\xc4", 0, scan)] + END  # with its tables
        assert decoder.decode(cut) is not None
        assert find_damage(cut, decoder) == "scans of a progressive JPEG are missing"


def _set(folder: Path) -> Path:
    """A whole photo and one of which half is there, with masks."""
    mask = np.zeros((64, 96), bool)
    mask[20:40, 30:50] = True
    for name in ("half", "whole"):
        save(folder, f"a/{name}", _photo(), mask)
    path = folder / "photos" / "a" / "half.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + END)
    return folder


def _pack(folder: Path, out: str, **options: object) -> Report:
    if not (folder / "ms").exists():
        write_mask_store(folder / "photos", ImportOptions(folder=folder / "masks"), folder / "ms")
        write_tile_store(folder / "ms", folder / "ts")
    options = PhotoOptions(**options)
    return write_shards(folder / "photos", folder / "ms", folder / "ts", folder / out, photo_options=options)


def test_they_are_listed_and_lend_no_background(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = _set(tmp_path)
    for _ in range(2):  # also of shards that are there already
        report = _pack(folder, "shards")
        report.finish()
        assert (report.photos, report.suspicious, report.left_out) == (2, ["a/half.jpg"], [])
        assert "suspicious: 1 damaged inside\n  a/half.jpg\n" in capsys.readouterr().out
        assert json.loads(report.path.read_text())["suspicious"] == ["a/half.jpg"]
    manifest = shards.open_shards(folder / "shards")
    assert (manifest.suspicious, manifest.donors) == (["a/half.jpg"], 1)
    samples = {s.key: s for s in shards.read_samples(folder / "shards", manifest.shards[0])}
    assert samples["a/half"].tile is None
    assert samples["a/whole"].tile is not None
    assert "strict" not in manifest.options["photos"]


def test_they_are_left_out_if_asked_for(tmp_path: Path) -> None:
    folder = _set(tmp_path)
    report = _pack(folder, "shards", strict=True)
    assert (report.photos, report.suspicious) == (1, [])
    assert report.left_out == [("a/half.jpg", "damaged inside", EARLY)]
    assert shards.open_shards(folder / "shards").options["photos"]["strict"] is True


def test_a_damaged_photo_that_is_encoded_anew_stays_suspicious(tmp_path: Path) -> None:
    report = _pack(_set(tmp_path), "shards", max_side=48)
    assert (report.suspicious, report.counts["shrunk"]) == (["a/half.jpg"], 2)
