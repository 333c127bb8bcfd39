"""Masks, tiles and shards: what they make, how they resume, what they refuse."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug import shards, stores
from dali_bgaug.errors import UserError
from tests.helpers import programs
from tests.helpers.shards import save
from tools.offline import masks as masks_tool
from tools.offline import shards as shards_tool
from tools.offline import tiles as tiles_tool
from tools.offline.detectors.imported import ImportOptions
from tools.offline.detectors.rbd import RBDOptions
from tools.offline.masks import write_mask_store
from tools.offline.report import Report
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos of two classes with a square as foreground."""
    for number in range(6):
        photo = np.random.default_rng(number).integers(0, 256, (64 + number, 80, 3), dtype=np.uint8)
        mask = np.zeros(photo.shape[:2], bool)
        mask[20:40, 30:50] = True
        save(tmp_path, f"class{number % 2}/photo {number}", photo, mask)
    return tmp_path


def _masks(folder: Path, **options: object) -> Report:
    masks = ImportOptions(folder=folder / "masks")
    return write_mask_store(folder / "photos", masks, folder / "mask_store", per_file=2, **options)


def _tiles(folder: Path, **options: object) -> Report:
    return write_tile_store(folder / "mask_store", folder / "tile_store", **options)


def _shards(folder: Path, out: str = "shards", **options: object) -> shards.Manifest:
    stores_ = folder / "mask_store", folder / "tile_store"
    write_shards(folder / "photos", *stores_, folder / out, **{"per_shard": 4} | options)
    return shards.open_shards(folder / out)


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_whole_path(folder: Path) -> None:
    report = _masks(folder)
    assert (report.photos, dict(report.counts)) == (6, {"empty": 0, "full_frame": 0})
    files = stores.list_files(folder / "mask_store", "--masks")
    assert len(files) == 3
    entries = stores.read_entries(files[0])
    assert entries.keys == ["class0/photo 0.jpg", "class0/photo 2.jpg"]
    assert entries.box.tolist() == [[30, 20, 50, 40]] * 2
    assert entries.size.tolist() == [[80, 64], [80, 66]]
    _tiles(folder)
    manifest = _shards(folder)
    assert (manifest.samples, manifest.donors, manifest.classes) == (6, 6, ["class0", "class1"])
    assert [shard.samples for shard in manifest.shards] == [4, 2]
    samples = {s.key: s for shard in manifest.shards for s in shards.read_samples(folder / "shards", shard)}
    assert set(samples) == {f"class{n % 2}/photo_{n}" for n in range(6)}
    for number in range(6):
        sample = samples[f"class{number % 2}/photo_{number}"]
        assert sample.photo == (folder / f"photos/class{number % 2}/photo {number}.jpg").read_bytes()
        assert sample.label == number % 2
        assert sample.mask.shape == (256, 256)
        expected = 20 * 20 / (80 * (64 + number))
        assert sample.mask.mean() == pytest.approx(expected, rel=0.05)
    assert not (folder / "shards" / ".progress").exists()


def test_the_order_is_shuffled_by_the_seed(folder: Path) -> None:
    _masks(folder), _tiles(folder)
    one, two, other = (_shards(folder, out, seed=seed) for out, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert [s.sha256 for s in one.shards] == [s.sha256 for s in two.shards]
    assert [s.sha256 for s in one.shards] != [s.sha256 for s in other.shards]


def test_a_second_run_does_nothing_and_workers_change_nothing(folder: Path) -> None:
    _masks(folder), _tiles(folder), _shards(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    _masks(folder), _tiles(folder), _shards(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    first = _tree(folder / "shards")
    for name in ("mask_store", "tile_store", "shards"):
        shutil.rmtree(folder / name)
    _masks(folder, workers=2), _tiles(folder), _shards(folder, workers=2)
    assert _tree(folder / "shards") == first


@pytest.mark.parametrize("tool", ["masks", "tiles", "shards"])
def test_kill_9_loses_no_finished_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    """Killed as soon as a file is finished; the second run keeps that file and ends as an uninterrupted
    one."""
    photo = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    mask = np.zeros((500, 500), bool)
    mask[100:300, 100:200] = True
    for number in range(40):
        save(tmp_path, f"{number:03d}", photo, mask)
    places = {"masks": tmp_path / "ms", "tiles": tmp_path / "ts", "shards": tmp_path / "sh"}
    photos = ["--photos", str(tmp_path / "photos"), "--workers", "1"]
    stores_ = ["--masks", str(places["masks"]), "--tiles", str(places["tiles"])]
    words = {
        "masks": [*photos, "--masks", str(tmp_path / "masks"), "--per-file", "4"],
        "tiles": [*photos, *stores_[:2], "--pixels"],
        "shards": [*photos, *stores_, "--per-shard", "4"],
    }

    def run(name: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *words[name], "--out", str(places[name])])
        {"masks": masks_tool, "tiles": tiles_tool, "shards": shards_tool}[name].main()

    for name in list(words)[: list(words).index(tool)]:
        run(name)
    out = places[tool]
    process = programs.launch(f"tools.{tool}", *words[tool], "--out", str(out))
    pattern = "*.h5" if tool != "shards" else ".progress/*.json"
    deadline = time.monotonic() + 60
    while len(list(out.glob(pattern))) < 2:
        assert time.monotonic() < deadline
        assert process.is_alive(), "ended before it could be killed"
        time.sleep(0.002)
    process.kill()
    process.join()
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("*.[hi]*") if path.is_file()}
    assert not (out / "manifest.json").exists()
    run(tool)
    assert sum(path.stat().st_mtime_ns == stamp for path, stamp in finished.items()) >= 2
    found = _tree(out)
    assert not [name for name in found if name.endswith(".tmp")]
    shutil.rmtree(out)
    run(tool)
    assert _tree(out) == found


# --- what is refused


def _damage(folder: Path, how: str) -> Path:
    path = folder / "photos" / "class1" / "photo 3.jpg"
    data = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize(("how", "reason"), [("empty", "empty file"), ("truncated", "truncated or damaged")])
@pytest.mark.parametrize("workers", [1, 2])
def test_photos_that_are_none_are_left_out(folder: Path, how: str, reason: str, workers: int) -> None:
    _damage(folder, how)
    report = _masks(folder, workers=workers)
    assert report.photos == 5
    assert [item[:2] for item in report.left_out] == [("class1/photo 3.jpg", reason)]
    again = _masks(folder)  # from what is there
    assert (again.kept, again.left_out) == (3, report.left_out)
    _tiles(folder)
    assert _shards(folder).samples == 5


def test_no_photo_at_all_is_an_error(folder: Path) -> None:
    for path in (folder / "photos").rglob("*.jpg"):
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="none of its 6 photos can be used .class0"):
        _masks(folder)


def test_photos_damaged_after_their_mask_was_made_stop_the_tiles(folder: Path) -> None:
    """Nothing is lost silently: the photo was good before."""
    _masks(folder)
    path = _damage(folder, "truncated")
    with pytest.raises(
        UserError, match=r"1 photos stop this:\n  .*photo 3.jpg: \d+ bytes, but \d+ when its mask"
    ):
        _tiles(folder, photo_folder=folder / "photos")
    assert len(list((folder / "tile_store").glob("*.h5"))) == 2  # the others are done
    path.unlink()
    with pytest.raises(UserError, match=r"photo 3.jpg: no such photo"):
        _tiles(folder, photo_folder=folder / "photos")


def test_masks_missing_or_of_another_size(folder: Path) -> None:
    path = folder / "masks" / "class1" / "photo 3.png"
    mask = Image.open(path).copy()
    path.unlink()
    with pytest.raises(UserError, match=r"photo 3.png: missing; .*class1/photo 3.jpg has none"):
        _masks(folder)
    assert len(list((folder / "mask_store").glob("*.h5"))) == 2  # the others are done
    mask.resize((10, 10)).save(path)
    with pytest.raises(UserError, match=r"photo 3.png: 10x10 pixels, but .*photo 3.jpg is 80x67"):
        _masks(folder)
    path.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"photo 3.png: not a readable mask"):
        _masks(folder)


def test_missing_folders_and_no_photos(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--photos=.*nowhere: does not exist"):
        write_mask_store(tmp_path / "nowhere", RBDOptions(), tmp_path / "out")
    with pytest.raises(UserError, match=r"--photos=.*: no photos"):
        write_mask_store(tmp_path, RBDOptions(), tmp_path / "out")
    with pytest.raises(UserError, match=r"--masks=.*: no store files"):
        write_tile_store(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_options(folder: Path) -> None:
    with pytest.raises(UserError, match="--threshold=1.5"):
        _masks(folder, threshold=1.5)
    with pytest.raises(UserError, match="--size=100: must be a positive multiple of 64"):
        _masks(folder, size=100)


def test_stores_that_do_not_belong_together(folder: Path) -> None:
    _masks(folder), _tiles(folder)
    shutil.rmtree(folder / "mask_store")
    _masks(folder, threshold=0.5)
    mask = np.zeros((64, 80), bool)
    mask[0:9, 0:9] = True
    Image.fromarray(mask).save(folder / "masks" / "class0" / "photo 0.png")
    shutil.rmtree(folder / "mask_store")
    _masks(folder)
    with pytest.raises(UserError, match=r"00000-of-00003.h5: was not made from"):
        _shards(folder)
    with pytest.raises(UserError, match="made from other photos, masks, backgrounds or options"):
        _masks(folder, threshold=0.7)


def test_two_photos_of_one_name(folder: Path) -> None:
    for kind, suffix in (("photos", "jpg"), ("masks", "png")):
        shutil.copy(
            folder / kind / "class0" / f"photo 0.{suffix}", folder / kind / "class0" / f"photo.0.{suffix}"
        )
    with pytest.raises(UserError, match="would both be packed as 'class0/photo_0'; rename one"):
        _masks(folder)


def test_all_bad_masks_are_listed_at_once(folder: Path) -> None:
    for number in (0, 4):
        (folder / "masks" / "class0" / f"photo {number}.png").write_bytes(b"no mask")
    with pytest.raises(UserError) as error:
        _masks(folder)
    assert "2 photos stop this" in str(error.value)
    assert "photo 0.png: not a readable mask" in str(error.value)
    assert "photo 4.png: not a readable mask" in str(error.value)


@pytest.mark.parametrize("kind", ["photos", "masks"])
def test_files_changed_since_are_noticed(folder: Path, kind: str) -> None:
    _masks(folder)
    path = min((folder / kind / "class0").iterdir())
    Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path)
    with pytest.raises(
        UserError, match=r"-of-00003.h5: made from other photos, masks, backgrounds or options"
    ):
        _masks(folder)


def test_masks_that_are_all_empty_are_an_error(folder: Path) -> None:
    """Zeros and ones instead of 0 and 255: a common kind of mask."""
    for path in (folder / "masks").rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match="no mask has a foreground: a pixel of at least 90% saliency"):
        _masks(folder)


# --- what masks and tiles are


def test_rotated_photos_turn_masks_that_ignored_it(tmp_path: Path) -> None:
    """A photo stored lying and marked as turned; its mask has the size of the stored pixels."""
    stored = np.zeros((40, 80, 3), np.uint8)
    mask = np.zeros((40, 80), bool)
    mask[0:10, 60:80] = True
    save(tmp_path, "p", stored, mask)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by 90 degrees
    Image.fromarray(stored).save(tmp_path / "photos" / "p.jpg", exif=exif)
    _masks(tmp_path)
    entries = stores.read_entries(stores.list_files(tmp_path / "mask_store", "--masks")[0])
    assert entries.size.tolist() == [[40, 80]]
    assert entries.box.tolist() == [[30, 60, 40, 80]]


def test_flagged_photos(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 200, (100, 100, 3), dtype=np.uint8)
    none, all_ = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    all_[4:97, 4:97] = True
    save(tmp_path, "empty", photo, none)
    save(tmp_path, "full", photo, all_)
    assert _masks(tmp_path).counts == {"empty": 1, "full_frame": 1}
    _tiles(tmp_path)
    manifest = _shards(tmp_path)
    assert manifest.donors == 0
    assert [s.tile for s in shards.read_samples(tmp_path / "shards", manifest.shards[0])] == [None, None]


def test_no_worker_outlives_a_killed_tool(folder: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import time\nfrom tools.cli import process\nlist(process(time.sleep, [(30,)] * 2, [1, 1], 2, 't'))",
    ]
    tool = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(workers := [worker for child in _children(tool.pid) for worker in _children(child)]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = [*_children(tool.pid), *workers]
    tool.kill()
    tool.wait()
    deadline = time.monotonic() + 10
    while any(_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _children(pid: int | str) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _alive(pid: str) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text().split("State:")[1].splitlines()[0]
    except FileNotFoundError:
        return False
