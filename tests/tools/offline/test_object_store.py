"""Stores and shards in an object store: the same bytes as on a disk, whatever is killed, changed or cut."""

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug import storage
from dali_bgaug.errors import UserError
from tests.helpers.object_store import Bucket, Fault, Request, first, make_bucket, put
from tests.helpers.processes import finish, launch
from tests.helpers.shards import save
from tools.cli import ALL, Part
from tools.offline import inspect, masks, tiles
from tools.offline.detectors.imported import ImportOptions
from tools.offline.labelled import folder_set, write_labelled
from tools.offline.masks import write_mask_store
from tools.offline.report import Report
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store

MASKS = ["00000-of-00003.h5", "00001-of-00003.h5", "00002-of-00003.h5"]
SHARDS = ["shard-00000.idx", "shard-00000.tar", "shard-00001.idx", "shard-00001.tar"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return make_bucket(monkeypatch)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five photos with masks: three files of a store, two shards."""
    folder = tmp_path_factory.mktemp("set")
    for number in range(5):
        photo = np.random.default_rng(number).integers(0, 256, (64, 96), np.uint8)
        mask = np.zeros((64, 96), bool)
        mask[20:50, 10:40] = True
        save(folder, f"{'ab'[number % 2]}/{number}", photo, mask)
    return folder


def _masks(photos: Path, out: storage.Location, scratch: Path, part: Part = ALL, **options: float) -> Report:
    detector = ImportOptions(folder=photos / "masks")
    options |= {"per_file": 2, "size": 64}
    report = write_mask_store(photos / "photos", detector, out, part=part, scratch=scratch, **options)
    report.finish()
    return report


def _tiles(place: storage.Location, scratch: Path, part: Part = ALL) -> Report:
    report = write_tile_store(*_below(place, "masks", "tiles"), scratch=scratch, part=part)
    report.finish()
    return report


def _shards(photos: Path, place: storage.Location, scratch: Path, part: Part = ALL) -> Report:
    its = _below(place, "masks", "tiles", "shards")
    report = write_shards(photos / "photos", *its, per_shard=3, scratch=scratch, part=part)
    report.finish()
    return report


def _below(place: storage.Location, *names: str) -> list[storage.Location]:
    return [storage.join(place, name) for name in names]


@pytest.fixture(scope="module")
def on_disk(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    _masks(photos, folder / "masks", folder)
    _tiles(folder, folder)
    _shards(photos, folder, folder)
    return folder


def _same(url: str, on_disk: Path, *kinds: str) -> None:
    """What lies in the store is what lies on the disk, to the byte, and nothing else."""
    for kind in kinds:
        there = {
            name: storage.read(f"{url}/{kind}/{name}") for name in list(storage.listing(f"{url}/{kind}"))
        }
        assert there == {path.name: path.read_bytes() for path in (on_disk / kind).iterdir()}


def _left(scratch: Path, use: str = "out") -> list[str]:
    return sorted(path.name for path in (scratch / use).rglob("*") if path.is_file())


def _puts(bucket: Bucket) -> list[str]:
    return [request.path.rpartition("/")[2] for request in bucket.proxy.seen if request.method == "PUT"]


def test_stores_and_shards_are_those_of_a_disk(
    bucket: Bucket, photos: Path, on_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{bucket.url}/sets/five"
    _masks(photos, f"{url}/masks", tmp_path)
    _tiles(url, tmp_path)
    _shards(photos, url, tmp_path)
    _same(url, on_disk, "masks", "tiles", "shards")
    assert _left(tmp_path) == []
    assert list(storage.listing(url)) == ["masks-report.json", "shards-report.json", "tiles-report.json"]
    assert list(storage.listing(f"{url}/shards")) == ["manifest.json", *SHARDS]
    assert list(storage.listing(f"{url}/shards/.progress")) == []
    said = capsys.readouterr().out
    assert f"{url}/shards: 5 photos in 2 files" in said
    assert f"report: {url}/shards-report.json" in said
    assert str(tmp_path) not in said.replace(str(photos), "")


def test_what_is_finished_is_kept(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    url = f"{bucket.url}/five"

    def runs() -> list[Report]:
        return [
            _masks(photos, f"{url}/masks", tmp_path),
            _tiles(url, tmp_path),
            _shards(photos, url, tmp_path),
        ]

    made = runs()
    assert [report.kept for report in made] == [0, 0, 0]
    bucket.proxy.seen.clear()
    again = runs()
    assert [(report.kept, report.files) for report in again] == [(3, 3), (3, 3), (2, 2)]
    assert [report.written for report in again] == [report.written for report in made]
    assert _puts(bucket) == []
    # One file of each that is lost is made again; the others are not.
    storage.delete(f"{url}/masks/{MASKS[1]}")
    storage.delete(f"{url}/tiles/{MASKS[2]}")
    bucket.proxy.seen.clear()
    assert [report.kept for report in runs()] == [2, 2, 2]
    assert sorted(set(_puts(bucket))) == [MASKS[1], MASKS[2], "masks-report.json", "tiles-report.json"]


def test_parts_of_several_machines(bucket: Bucket, photos: Path, on_disk: Path, tmp_path: Path) -> None:
    url, parts = f"{bucket.url}/five", [Part(1, 2), Part(2, 2)]
    scratch = dict(zip(parts, (tmp_path / "first", tmp_path / "second"), strict=True))
    for part in parts:
        _masks(photos, f"{url}/masks", scratch[part], part)
        _tiles(url, scratch[part], part)  # needs no masks of other parts
    for part in parts:
        assert list(storage.listing(f"{url}/shards")) == ([] if part == parts[0] else SHARDS[:2])
        _shards(photos, url, scratch[part], part)
    _same(url, on_disk, "masks", "tiles", "shards")
    assert list(storage.listing(f"{url}/shards/.progress")) == []


def _kill_target(environment: dict[str, str], photos: Path, url: str, scratch: Path) -> None:
    os.environ.update(environment)
    _shards(photos, url, scratch)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_an_upload(
    bucket: Bucket, photos: Path, on_disk: Path, tmp_path: Path
) -> None:
    url = f"{bucket.url}/five"
    for kind in ("masks", "tiles"):
        for path in (on_disk / kind).iterdir():
            storage.upload(path, f"{url}/{kind}/{path.name}")
    reached, killed = threading.Event(), threading.Event()

    def hold(request: Request) -> Fault | None:
        if request.method != "PUT" or "shard-00001.tar" not in request.path or killed.is_set():
            return None
        reached.set()
        killed.wait(60)
        return Fault(status=503)

    bucket.proxy.faults = hold
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    processes = launch(_kill_target, environment, photos, url, tmp_path)
    assert reached.wait(60)
    processes[0].kill()
    assert finish(processes) == [-9]
    killed.set()
    assert list(storage.listing(f"{url}/shards")) == SHARDS[:2]
    assert list(storage.listing(f"{url}/shards/.progress")) == ["shard-00000.json"]
    assert _left(tmp_path) == ["shard-00001.idx", "shard-00001.json", "shard-00001.tar"]
    bucket.proxy.seen.clear()
    assert _shards(photos, url, tmp_path).kept == 2  # the second was packed, and is only uploaded
    _same(url, on_disk, "shards")
    assert "shard-00000.tar" not in _puts(bucket)


def test_an_upload_that_fails_is_done_by_the_next_run(
    bucket: Bucket, photos: Path, on_disk: Path, tmp_path: Path
) -> None:
    url = f"{bucket.url}/five/masks"
    bucket.proxy.faults = first(4, Fault(status=503, code="SlowDown"), "PUT")
    with pytest.raises(UserError, match=rf"{url}/{MASKS[0]}: cannot be written \(SlowDown.*tried 4 times"):
        _masks(photos, url, tmp_path)
    assert list(storage.listing(url)) == []
    assert _left(tmp_path) == [MASKS[0]]
    assert _masks(photos, url, tmp_path).kept == 1
    _same(f"{bucket.url}/five", on_disk, "masks")
    assert _left(tmp_path) == []


def test_other_options_are_refused(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    url = f"{bucket.url}/five"
    _masks(photos, f"{url}/masks", tmp_path)
    with pytest.raises(UserError, match=rf"^{url}/masks/{MASKS[0]}: made from other photos, masks"):
        _masks(photos, f"{url}/masks", tmp_path, threshold=0.2)
    assert _left(tmp_path) == []
    put(f"{url}/masks/00000-of-00009.h5", b"x")
    with pytest.raises(
        UserError, match=f"^{url}/masks/00000-of-00009.h5: belongs to a store of other photos"
    ):
        _masks(photos, f"{url}/masks", tmp_path)
    with pytest.raises(UserError, match=f"--masks={url}/masks: holds files of two stores"):
        _tiles(url, tmp_path)


def test_shards_of_another_packing_are_refused(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    url = f"{bucket.url}/five"
    _masks(photos, f"{url}/masks", tmp_path)
    _tiles(url, tmp_path)
    words = photos / "photos", *_below(url, "masks", "tiles", "shards")
    write_shards(*words, per_shard=3, scratch=tmp_path, part=Part(1, 2))
    with pytest.raises(UserError, match=f"^{url}/shards/.progress/shard-00000.json: a shard of other photos"):
        write_shards(*words, per_shard=3, seed=1, scratch=tmp_path)
    write_shards(*words, per_shard=3, scratch=tmp_path)
    with pytest.raises(UserError, match=f"^{url}/shards/manifest.json: packed from other photos"):
        write_shards(*words, per_shard=3, seed=1, scratch=tmp_path)
    put(f"{url}/shards/shard-00001.tar", b"x" * 100)
    with pytest.raises(UserError, match=f"^{url}/shards/shard-00001.tar: missing, or not of the size it"):
        write_shards(*words, per_shard=3, scratch=tmp_path)


def test_a_store_that_was_made_anew_is_read_anew(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    url = f"{bucket.url}/five"
    _masks(photos, f"{url}/masks", tmp_path)
    _tiles(url, tmp_path)
    for kind in ("masks", "tiles"):
        for name in MASKS:
            storage.delete(f"{url}/{kind}/{name}")
    _masks(photos, f"{url}/masks", tmp_path, threshold=0.2)
    _tiles(url, tmp_path)
    _shards(photos, url, tmp_path)
    assert b'"threshold": 0.2' in storage.read(f"{url}/shards/manifest.json")


def test_masks_that_change_while_shards_are_planned(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    """After the plan was made from all but the maps, before these are read."""
    url = f"{bucket.url}/five"
    _masks(photos, f"{url}/masks", tmp_path)
    _tiles(url, tmp_path)
    other, name = storage.read(f"{url}/masks/{MASKS[0]}"), MASKS[1]
    heads = []

    def replace(request: Request) -> None:
        if request.path.endswith(f"masks/{name}") and (request.range or "").startswith("bytes=0-"):
            heads.append(request.range)
            if len(heads) == 2:
                put(f"{url}/masks/{name}", other)

    bucket.proxy.faults = replace
    with pytest.raises(UserError, match=f"{url}/masks/{name}: changed while it was being read"):
        _shards(photos, url, tmp_path / "another")
    assert len(heads) == 2
    assert list(storage.listing(f"{url}/shards")) == []


def test_damage_is_named_by_its_url(
    bucket: Bucket, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket.url}/five"
    _masks(photos, f"{url}/masks", tmp_path)
    damaged = bytearray(storage.read(f"{url}/masks/{MASKS[1]}"))
    damaged[-70] ^= 1
    put(f"{url}/masks/{MASKS[1]}", bytes(damaged))
    words = ["--masks", f"{url}/masks", "--out", f"{url}/tiles", "--scratch", str(tmp_path), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["tiles", *words])
    with pytest.raises(
        UserError, match=rf"^{url}/masks/{MASKS[1]}: damaged: .*by way of a copy in {tmp_path}\)$"
    ):
        tiles.main()


def test_labelled_photos(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    labelled = folder_set(photos / "photos")
    write_labelled(labelled, tmp_path / "shards", per_shard=3)
    write_labelled(labelled, f"{bucket.url}/five/shards", per_shard=3, scratch=tmp_path / "scratch")
    _same(f"{bucket.url}/five", tmp_path, "shards")


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("s3:/bucket/masks", "argument --out: s3:/bucket/masks: a URL has two slashes"),
        ("s3://", "argument --out: s3://: names no bucket"),
    ],
)
def test_urls_that_are_none(
    out: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["masks", "--photos", "x", "--out", out])
    with pytest.raises(SystemExit, match="2"):
        masks.main()
    assert says in capsys.readouterr().err


def test_a_whole_bucket_is_no_place(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="s3://bucket: a whole bucket; give a prefix in it, s3://bucket/NAME"):
        _masks(photos, "s3://bucket", tmp_path)


def test_inspection_is_of_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", "s3://bucket/masks"])
    with pytest.raises(UserError, match="DIR=s3://bucket/masks: is inspected on a disk; copy it there"):
        inspect.main()
