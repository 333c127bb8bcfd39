"""The backgrounds challenge, pixel by pixel, of photos whose grey levels tell who lent what."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug import shards
from dali_bgaug.errors import UserError
from tests.helpers.offline import pack_photos
from tests.helpers.shards import save
from tools.offline.shards import write_shards
from tools.synthetic import background_challenge
from tools.synthetic.background_challenge import MIXED, SPLITS, Photo, draw_donors, make_challenge

FOREGROUND = 255
LEVELS = {  # of the backgrounds
    "ant/0": 10,
    "ant/1": 20,
    "ant/2": 30,
    "bee/0": 60,
    "bee/1": 70,
    "cow/0": 110,
    "cow/1": 120,
    "cow/2": 130,
    "cow/deep/3": 140,
}
NAMES = {key: key.replace("deep/", "deep_") for key in LEVELS}


def scene(level: int, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A photo of 128 rows and its mask: a white L before flat grey, box 16..79 x 24..71."""
    mask = np.zeros((128, width), bool)
    mask[16:80, 24:40] = True
    mask[64:80, 24:72] = True
    return np.where(mask, FOREGROUND, level).astype(np.uint8), mask


def pixels(out: Path, split: str, name: str) -> np.ndarray:
    with Image.open(out / split / "val" / f"{name}.png") as image:
        assert image.mode == "RGB" and image.format == "PNG"
        return np.asarray(image)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a packed set: three classes, flat backgrounds of LEVELS, and three photos of no use."""
    folder = tmp_path_factory.mktemp("levels")
    for number, (key, level) in enumerate(LEVELS.items()):
        save(folder, key, *scene(level, width=256 if number % 2 else 128))
    grey = np.full((128, 128), 90, np.uint8)
    save(folder, "ant/empty", grey, np.zeros((128, 128), bool))
    save(folder, "bee/whole", grey, np.ones((128, 128), bool))
    nearly = np.zeros((128, 128), bool)
    nearly[4:124, 4:124] = True
    save(folder, "cow/rim", grey, nearly)
    pack_photos(folder)
    return folder


@pytest.fixture(scope="module")
def challenge(levels: Path) -> Path:
    out = levels / "challenge"
    make_challenge(levels / "shards", out)
    return out


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("key", LEVELS)
def test_foreground_and_background_alone(challenge: Path, key: str) -> None:
    name, width = NAMES[key], 256 if list(LEVELS).index(key) % 2 else 128
    photo, mask = scene(LEVELS[key], width)
    box = np.zeros_like(mask)
    box[16:80, 24:72] = True
    original = pixels(challenge, "original", name)
    assert original.shape == (128, width, 3)
    # exact, for every block of 8 x 8 pixels of the JPEG is flat
    assert np.array_equal(original, np.repeat(photo[..., None], 3, axis=2))
    only_fg, no_fg = pixels(challenge, "only_fg", name), pixels(challenge, "no_fg", name)
    assert (only_fg[mask] == FOREGROUND).all() and (only_fg[~mask] == 0).all()
    assert (no_fg[mask] == 0).all() and (no_fg[~mask] == LEVELS[key]).all()
    boxed = pixels(challenge, "only_bg_b", name)
    assert (boxed[box] == 0).all() and (boxed[~box] == LEVELS[key]).all()
    assert (pixels(challenge, "only_bg_t", name) == LEVELS[key]).all()


@pytest.mark.parametrize("key", LEVELS)
def test_mixed_have_the_right_donors(challenge: Path, key: str) -> None:
    name, width = NAMES[key], 256 if list(LEVELS).index(key) % 2 else 128
    mask = scene(0, width)[1]
    donors = {}
    for split in MIXED:
        image = pixels(challenge, split, name)
        assert image.shape == (128, width, 3)
        assert (image[mask] == FOREGROUND).all()
        level = int(image[0, 0, 0])
        assert (image[~mask] == level).all()
        donors[split] = {level: key for key, level in LEVELS.items()}[level]
    assert key not in donors.values()
    own = key[:3]
    assert donors["mixed_same"][:3] == own
    assert donors["mixed_next"][:3] == {"ant": "bee", "bee": "cow", "cow": "ant"}[own]


def test_draws_are_uniform_over_classes_then_photos() -> None:
    """Classes of 2, 3 and 5 photos, by 600 seeds."""
    photos = [
        Photo(f"{label}/{number}", label, "", "", {})
        for label, count in ((2, 2), (4, 3), (7, 5))
        for number in range(count)
    ]
    draws: dict[str, Counter[str]] = {split: Counter() for split in MIXED}
    for seed in range(600):
        of_first = draw_donors(photos, seed)[2]  # 4/0
        for split, donor in of_first.items():
            draws[split][donor.key] += 1
    assert set(draws["mixed_same"]) == {"4/1", "4/2"}
    assert set(draws["mixed_next"]) == {"7/0", "7/1", "7/2", "7/3", "7/4"}
    # of 600: four standard deviations either side
    assert all(251 <= count <= 349 for count in draws["mixed_same"].values())
    assert all(80 <= count <= 160 for count in draws["mixed_next"].values())
    rand = draws["mixed_rand"]
    assert len(rand) == 9 and "4/0" not in rand
    by_class = Counter({label: sum(rand[key] for key in rand if key[0] == label) for label in "247"})
    assert all(153 <= count <= 247 for count in by_class.values())
    assert draw_donors(photos[::-1], 5) == draw_donors(photos, 5)[::-1]
    assert draw_donors(photos, 5) != draw_donors(photos, 6)


def test_textured_photos_made_smaller(textured: Path, tmp_path: Path) -> None:
    result = make_challenge(textured, tmp_path / "out", side=64)
    assert result["photos"] == 50 and result["left_out"] == []
    manifest = shards.read_manifest(textured)
    samples = {s.key: s for shard in manifest.shards for s in shards.read_samples(textured, shard)}
    for key in ("class0/photo00", "class1/photo07", "class2/photo44"):
        got = {split: pixels(tmp_path / "out", split, key) for split in SPLITS}
        assert {image.shape for image in got.values()} == {got["original"].shape}
        assert min(got["original"].shape[:2]) == 64
        assert np.array_equal(got["only_fg"] + got["no_fg"], got["original"])
        mask = got["only_fg"].any(axis=2)
        assert mask.mean() == pytest.approx(samples[key].mask.mean(), abs=0.01)
        for split in MIXED:
            assert np.array_equal(got[split][mask], got["original"][mask])
        box = (got["only_bg_b"] == 0).all(axis=2)
        assert np.array_equal(got["only_bg_b"][~box], got["original"][~box])
        assert box[mask].all() and not (got["no_fg"].any(axis=2) & mask).any()
        tile = got["only_bg_t"].astype(int)
        assert np.abs(tile - got["original"])[~box].mean() < 4  # a JPEG lies between


def test_tiles_that_are_pixels(textured: Path, textured_pixels: Path, tmp_path: Path) -> None:
    """Only the tiles have another JPEG between."""
    for name, folder in (("geometry", textured), ("pixels", textured_pixels)):
        make_challenge(folder, tmp_path / name, side=64)
    for split in ("original", "only_bg_t", "mixed_next"):
        one, other = (pixels(tmp_path / name, split, "class1/photo07") for name in ("geometry", "pixels"))
        difference = np.abs(one.astype(int) - other).mean()
        assert difference < 3 and (difference == 0) == (split == "original")


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a photo that EXIF turns, a square one, and two wide ones with bands of 40, 120 and 200."""
    folder = tmp_path_factory.mktemp("turned")
    save(folder, "a/square", *scene(80))
    photo, mask = scene(80, width=256)
    save(folder, "a/turned", photo, np.rot90(mask, -1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(photo).save(folder / "photos/a/turned.jpg", quality=98, subsampling=0, exif=exif)
    for number in range(2):
        bands = np.repeat(np.array([40, 120, 200], np.uint8), [64, 128, 64])[None].repeat(128, axis=0)
        mask = np.zeros((128, 256), bool)
        mask[8:24, 96:112] = True
        save(folder, f"b/{number}", np.where(mask, FOREGROUND, bands).astype(np.uint8), mask)
    return pack_photos(folder)


def test_photos_are_upright_and_tiles_cropped_centrally(turned: Path, tmp_path: Path) -> None:
    make_challenge(turned, tmp_path / "out")
    mask = np.rot90(scene(0, width=256)[1], -1)
    assert mask.shape == (256, 128)
    only_fg = pixels(tmp_path / "out", "only_fg", "a/turned")
    assert np.array_equal(only_fg, np.where(mask, FOREGROUND, 0)[..., None].repeat(3, axis=2))
    assert (pixels(tmp_path / "out", "only_bg_t", "a/turned") == 80).all()
    # 128 x 256 over 128 x 128: the middle band is left
    square, mask = pixels(tmp_path / "out", "mixed_next", "a/square"), scene(0)[1]
    assert (square[mask] == FOREGROUND).all()
    assert np.abs(square[~mask].astype(int) - 120).max() <= 2
    # ... over 256 x 128: twice as large, of which 128 of 512 columns are left
    tall = pixels(tmp_path / "out", "mixed_next", "a/turned")
    assert tall.shape == (256, 128, 3)
    assert np.abs(tall[200:].astype(int) - 120).max() <= 2
    wide = pixels(tmp_path / "out", "only_bg_t", "b/0")
    assert np.abs(wide[64, [32, 128, 224], 0].astype(int) - [40, 120, 200]).max() <= 2


# ---------------------------------------------------------------- the set


def test_all_splits_show_the_same_photos(levels: Path, challenge: Path) -> None:
    assert SPLITS == (
        "original",
        "mixed_same",
        "mixed_rand",
        "mixed_next",
        "only_fg",
        "only_bg_b",
        "only_bg_t",
        "no_fg",
    )
    files = [f"{split}/val/{NAMES[key]}.png" for split in SPLITS for key in LEVELS]
    assert sorted(contents(challenge)) == sorted([*files, "challenge.json"])
    assert json.loads((challenge / "challenge.json").read_text()) == {
        "version": 1,
        "side": 256,
        "seed": 0,
        "manifest": shards.manifest_digest(levels / "shards"),
        "photos": 9,
        "labels": {"ant": 0, "bee": 1, "cow": 2},
        "counts": {split: {"ant": 3, "bee": 2, "cow": 4} for split in SPLITS},
        "left_out": [
            ["ant/empty", "no foreground"],
            ["bee/whole", "all foreground"],
            ["cow/rim", "no strip of background to tile"],
        ],
    }


@pytest.mark.slow
def test_workers_and_the_order_of_shards_do_not_matter(levels: Path, challenge: Path) -> None:
    write_shards(
        levels / "photos", levels / "mask_store", levels / "tile_store", levels / "other", per_shard=3, seed=7
    )
    make_challenge(levels / "other", levels / "again", workers=2)
    again, before = contents(levels / "again"), contents(challenge)
    del again["challenge.json"], before["challenge.json"]
    assert again == before
    make_challenge(levels / "shards", levels / "seeded", seed=1)
    seeded = contents(levels / "seeded")
    assert {name.split("/")[0] for name in before if seeded[name] != before[name]} == set(MIXED)


def test_interrupted_set_is_completed(
    levels: Path, challenge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[int] = []
    compose = background_challenge.compose

    def fail_at_fourth(*parts: np.ndarray) -> dict[str, np.ndarray]:
        if len(composed) == 3:
            raise RuntimeError("lights out")
        composed.append(1)
        return compose(*parts)

    monkeypatch.setattr(background_challenge, "compose", fail_at_fourth)
    with pytest.raises(RuntimeError, match="lights out"):
        make_challenge(levels / "shards", tmp_path / "out")
    assert not (tmp_path / "out" / "challenge.json").exists()
    before = contents(challenge)
    half = contents(tmp_path / "out")
    del half["challenge.json.unfinished"]
    assert len(half) == 24 and half.items() <= before.items()
    with pytest.raises(UserError, match=r"unfinished: made with seed=0, asked for is seed=1; choose another"):
        make_challenge(levels / "shards", tmp_path / "out", seed=1)

    monkeypatch.setattr(background_challenge, "compose", lambda *parts: composed.append(1) or compose(*parts))
    (tmp_path / "out/mixed_rand/val/ant/1.png").unlink()
    make_challenge(levels / "shards", tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert len(composed) == 3 + 6 + 1  # ant/1 anew, not ant/0 and ant/2


def test_finished_set_is_left_alone(
    levels: Path, challenge: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(background_challenge, "_write_images")
    result = make_challenge(levels / "shards", challenge)
    assert result == json.loads((challenge / "challenge.json").read_text())
    assert "challenge.json is there already, with these settings: nothing to do" in capsys.readouterr().out
    with pytest.raises(
        UserError, match=r"challenge\.json: made with side=256, asked for is side=128; choose"
    ):
        make_challenge(levels / "shards", challenge, side=128)


def test_out_of_another_set_is_refused(textured: Path, challenge: Path) -> None:
    with pytest.raises(
        UserError, match=r"challenge\.json: made with manifest=\w+, asked for is manifest=\w+"
    ):
        make_challenge(textured, challenge)


def test_folder_of_something_else_is_refused(levels: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UserError, match="neither a backgrounds challenge nor an empty folder"):
            make_challenge(levels / "shards", out)
    (tmp_path / "challenge.json").write_text("[1]")
    with pytest.raises(UserError, match=r"challenge\.json: not a settings file"):
        make_challenge(levels / "shards", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["challenge.json", "thesis.tex"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"side": 31}, "--side=31: must be at least 32"), ({"seed": -1}, "--seed=-1: must be 0 or more")],
)
def test_bad_options(levels: Path, tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_challenge(levels / "shards", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_set_of_one_class_is_refused(flat: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has one class only, ''; pack photos of two classes or more"):
        make_challenge(flat, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_class_needs_two_usable_photos(tmp_path: Path) -> None:
    for key in ("a/0", "a/1", "b/0"):
        save(tmp_path, key, *scene(100))
    save(tmp_path, "b/1", scene(100)[0], np.zeros((128, 128), bool))
    pack_photos(tmp_path)
    with pytest.raises(
        UserError, match="'b' has 1 usable photos of 2, two are needed; pack more, or none of it"
    ):
        make_challenge(tmp_path / "shards", tmp_path / "out")


def test_folders_are_in_the_order_of_labels(levels: Path, tmp_path: Path) -> None:
    """Classes whose names are in another order get their label in front; `yak`, without photos, no folder."""
    (tmp_path / "classes.txt").write_text("cow\nyak\nbee\nant\n")
    write_shards(
        levels / "photos",
        levels / "mask_store",
        levels / "tile_store",
        tmp_path / "shards",
        classes=tmp_path / "classes.txt",
    )
    result = make_challenge(tmp_path / "shards", tmp_path / "out")
    assert result["labels"] == {"0_cow": 0, "2_bee": 2, "3_ant": 3}
    belongs = json.loads((tmp_path / "out" / "class_map.json").read_text())
    assert list(belongs.values()) == ["0_cow", -1, "2_bee", "3_ant"]
    folders = [path.name for path in (tmp_path / "out/mixed_next/val").iterdir()]
    assert sorted(folders) == ["0_cow", "2_bee", "3_ant"]
    level = int(pixels(tmp_path / "out", "mixed_next", "0_cow/1")[0, 0, 0])
    assert level in (60, 70)  # a bee's: the next class that has photos


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("a/s/x", "a/s_x", "b/0", "b/1"), "a/s/x and a/s_x would both be a/s_x.png; rename one of them"),
        (("0", "1", "b/0", "b/1"), "class '' cannot be a folder; pack it under another name"),
    ],
)
def test_names_that_make_no_folders(tmp_path: Path, keys: tuple[str, ...], message: str) -> None:
    for key in keys:
        save(tmp_path, key, *scene(100))
    pack_photos(tmp_path)
    with pytest.raises(UserError, match=message):
        make_challenge(tmp_path / "shards", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_line(
    levels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    options = ["--shards", str(levels / "shards"), "--out", str(out), "--side", "32", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["background_challenge", *options])
    background_challenge.main()
    _, *left_out, summary, splits, measure = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in left_out] == ["  ant/empty", "  bee/whole", "  cow/rim"]
    assert summary.startswith("9 photos, 3 left out") and f"{out}/challenge.json" in summary
    assert splits.startswith(f"{out}/SPLIT/val/CLASS: ") and "mixed_same, mixed_rand, mixed_next" in splits
    assert f"train.evaluate background-gap --checkpoint RUN --data {out} " in measure
    assert pixels(out, "original", "ant/0").shape == (32, 32, 3)
    assert pixels(out, "original", "ant/1").shape == (32, 64, 3)
