"""The demo set: same bytes for the same settings, exact masks, backgrounds that give the class away."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dali_bgaug.errors import UserError
from tools.synthetic import demo_data
from tools.synthetic.demo_data import BACKGROUNDS, CLASSES, DemoSettings, Photo, plan, render, write_demo_set

SMALL = DemoSettings(photos=36, test_photos=18, seed=3)
TINY = DemoSettings(photos=4, test_photos=3, classes=3)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "data"
    write_demo_set(out, SMALL, workers=1)
    return out


def test_layout(demo: Path) -> None:
    files = contents(demo)
    assert len(files) == 2 * (36 + 18 + 18) + 2
    assert sorted(name for name in files if name.startswith("train/disc/")) == [
        "train/disc/disc_00000.jpg",
        "train/disc/disc_00009.jpg",
        "train/disc/disc_00018.jpg",
        "train/disc/disc_00027.jpg",
    ]
    for name in list(files):
        if name.endswith(".jpg"):
            assert f"masks/{name[:-4]}.png" in files
    assert json.loads(files["demo.json"]) == {
        "version": 1,
        "photos": 36,
        "test_photos": 18,
        "classes": 9,
        "correlation": 0.9,
        "material": 0.0,
        "seed": 3,
    }


def test_labels(demo: Path) -> None:
    with (demo / "labels.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["path"] for row in rows] == sorted(str(p.relative_to(demo)) for p in demo.rglob("*.jpg"))
    assert Counter(row["class"] for row in rows) == dict.fromkeys(CLASSES, 8)
    for row in rows:
        assert row["path"].split("/")[1] == row["class"] == CLASSES[int(row["label"])]
        if row["path"].startswith("mixed_same/"):
            assert row["background"] == BACKGROUNDS[int(row["label"])]
    star = next(row for row in rows if row["path"] == "mixed_same/star/star_00002.jpg")
    assert star == {
        "path": "mixed_same/star/star_00002.jpg",
        "label": "2",
        "class": "star",
        "background": "clouds",
    }


def test_sizes_and_masks(demo: Path) -> None:
    sizes, roomy = set(), 0
    photos = sorted(demo.rglob("*.jpg"))
    for photo in photos:
        image = load(photo)
        mask = load(demo / "masks" / photo.relative_to(demo).with_suffix(".png"))
        height, width = mask.shape
        assert image.shape == (height, width, 3)
        assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
        assert all(200 <= side <= 500 for side in (height, width))
        assert 0.03 <= np.mean(mask == 255) <= 0.45
        sizes.add((height, width))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        roomy += (
            max(rows[0], height - 1 - rows[-1]) >= 0.1 * height
            or max(columns[0], width - 1 - columns[-1]) >= 0.1 * width
        )
    assert len(sizes) > 40
    assert roomy >= 0.9 * len(photos)


def test_mixed_splits_share_their_objects(demo: Path) -> None:
    inside, outside = [], []
    for path in sorted((demo / "mixed_same").rglob("*.jpg")):
        name = path.relative_to(demo / "mixed_same")
        mask_path = demo / "masks" / "mixed_same" / name.with_suffix(".png")
        twin = demo / "masks" / "mixed_rand" / name.with_suffix(".png")
        assert mask_path.read_bytes() == twin.read_bytes()
        difference = load(path).astype(int) - load(demo / "mixed_rand" / name)
        with Image.open(mask_path) as mask:
            core = np.asarray(mask.filter(ImageFilter.MinFilter(9))) == 255
            far = np.asarray(mask.filter(ImageFilter.MaxFilter(9))) == 0
        inside.append(np.abs(difference[core]).mean())
        outside.append(np.abs(difference[far]).mean())
    assert max(inside) < 4  # JPEG blocks that reach over the edge
    assert min(outside) > 8  # another background, be it of the same family


def test_same_bytes_from_two_workers(demo: Path, tmp_path: Path) -> None:
    write_demo_set(tmp_path / "again", SMALL, workers=2)
    assert contents(tmp_path / "again") == contents(demo)


def test_another_seed_gives_other_photos(tmp_path: Path) -> None:
    pixels = set()
    for seed in (0, 1):
        out = tmp_path / str(seed)
        write_demo_set(out, DemoSettings(photos=2, test_photos=2, classes=2, seed=seed), workers=1)
        pixels |= {path.read_bytes() for path in out.rglob("*.jpg")}
    assert len(pixels) == 12


def test_backgrounds_follow_the_class() -> None:
    photos = plan(DemoSettings(photos=1800, test_photos=900))
    train = [photo for photo in photos if photo.split == "train"]
    own = sum(photo.family == photo.label for photo in train)
    # 1800 draws at .9: mean 1620, deviation 12.7; four deviations either side
    assert 1569 <= own <= 1671
    # the other 180 take the eight other families alike, so that each of the 72 pairs sees 2.5
    strays = Counter((photo.family - photo.label) % 9 for photo in train if photo.family != photo.label)
    assert set(strays) == {1, 2, 3, 4, 5, 6, 7, 8} and min(strays.values()) >= 6
    random = Counter(photo.family for photo in photos if photo.split == "mixed_rand")
    assert len(random) == 9 and all(60 <= count <= 140 for count in random.values())  # 100 +- 4 x 9.4


@pytest.mark.parametrize(("correlation", "own"), [(0.0, 0), (1.0, 30)])
def test_correlation_at_its_ends(correlation: float, own: int) -> None:
    photos = plan(DemoSettings(photos=30, test_photos=9, correlation=correlation))
    assert sum(photo.family == photo.label for photo in photos if photo.split == "train") == own


def _reds(photos: list[Photo]) -> list[float]:
    """How red the objects are: red over all, means over their pixels."""
    reds = []
    for photo in photos:
        image, mask = render(photo, seed=0)
        pixels = np.asarray(image)[np.asarray(mask) > 0].mean(axis=0)
        reds.append(pixels[0] / pixels.sum())
    return reds


def test_objects_of_their_own_material_have_a_hue_in_common() -> None:
    """Class 0's hue is red, class 3's is green."""
    photos = plan(DemoSettings(photos=90, test_photos=9, material=1.0))
    assert all(photo.own_material for photo in photos)
    red, green = (_reds([p for p in photos if p.split == "train" and p.label == k]) for k in (0, 3))
    assert np.mean(red) > 0.5
    assert np.mean(green) < 0.25
    plain = [photo for photo in plan(DemoSettings(photos=90, test_photos=9)) if photo.split == "train"]
    assert not any(photo.own_material for photo in plain)
    assert all(0.25 < np.mean(_reds([p for p in plain if p.label == k])) < 0.45 for k in (0, 3))
    half = Counter(photo.own_material for photo in plan(DemoSettings(photos=400, material=0.5)))
    assert 340 < half[True] < 460  # of 800


def test_finished_set_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_demo_set(tmp_path, TINY, workers=1)
    before = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*")}
    write_demo_set(tmp_path, TINY, workers=1)
    assert {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert "already" in capsys.readouterr().out


def test_a_set_from_before_there_were_materials_is_known(tmp_path: Path) -> None:
    write_demo_set(tmp_path, TINY, workers=1)
    settings = json.loads((tmp_path / "demo.json").read_text())
    del settings["material"]
    (tmp_path / "demo.json").write_text(json.dumps(settings))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    write_demo_set(tmp_path, TINY, workers=1)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    assert len(before) == 10


def test_other_settings_are_refused(tmp_path: Path) -> None:
    write_demo_set(tmp_path, TINY, workers=1)
    with pytest.raises(UserError, match=r"demo\.json: made with photos=4, .* photos=5; .*--out"):
        write_demo_set(tmp_path, DemoSettings(photos=5, test_photos=3, classes=3), workers=1)


def test_interrupted_set_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_demo_set(tmp_path / "whole", TINY, workers=1)
    drawn = []

    def fail_at_fourth(photo: demo_data.Photo, seed: int) -> tuple[Image.Image, Image.Image]:
        if len(drawn) == 3:
            raise RuntimeError("lights out")
        drawn.append(photo)
        return demo_render(photo, seed)

    demo_render = demo_data.render
    monkeypatch.setattr(demo_data, "render", fail_at_fourth)
    out = tmp_path / "cut"
    with pytest.raises(RuntimeError, match="lights out"):
        write_demo_set(out, TINY, workers=1)
    assert not (out / "demo.json").exists()
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"seed=0, asked for is seed=1"):
        write_demo_set(out, DemoSettings(photos=4, test_photos=3, classes=3, seed=1), workers=1)
    write_demo_set(out, TINY, workers=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="neither a demo set nor an empty folder"):
        write_demo_set(tmp_path, TINY, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("classes", 1, "--classes is 1"),
        ("classes", 10, "--classes is 10"),
        ("photos", 8, "--photos is 8"),
        ("test_photos", 8, "--test-photos is 8"),
        ("correlation", 1.5, r"--correlation is 1\.5"),
        ("correlation", float("nan"), "--correlation is nan"),
        ("material", -0.1, r"--material is -0\.1"),
        ("seed", -1, "--seed is -1"),
    ],
)
def test_bad_settings(option: str, value: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DemoSettings(**{option: value})
