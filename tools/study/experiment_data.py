"""Data of the experiment: a source of photos to train and to test on, and what is made of them.

A source is the demo set or photos of the user's. Whatever it is, under OUT:

    data, held_out      stores and shards to train on and to test on
    few                 shards of FEW percent of the photos to train on
    challenge           the held-out photos with other backgrounds
    corrupted           the same, corrupted; where the package of tools.corruptions is installed
"""

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, require_folder, write_text
from dali_bgaug.photo_tree import list_photos
from dali_bgaug.shards import manifest_digest, open_shards
from tools.offline.classes import read_classes
from tools.offline.detectors import DetectorOptions
from tools.offline.detectors.imported import ImportOptions
from tools.offline.lists import read_lines
from tools.offline.masks import choose_detector
from tools.offline.subsets import choose
from tools.study.splits import Split, pack_split
from tools.synthetic.background_challenge import make_challenge
from tools.synthetic.corruptions import Corruptions, make_corrupted
from tools.synthetic.demo_data import DemoSettings, write_demo_set

FEW = 10
"""Percent of the labels in the column of few labels."""
HELD_OUT = 20
"""Percent of the photos to test on, where they are not split already."""
CORRUPTIONS = ("gaussian_noise", "motion_blur", "fog", "jpeg_compression")
"""One of each category of ImageNet-C, in two severities."""
SEVERITIES = (1, 3)


class Source(NamedTuple):
    """Photos to train on and to test on."""

    train: Split
    test: Split
    record: dict[str, Any]
    """What the result says of them."""


class Prepared(NamedTuple):
    """What runs are trained and tested on."""

    shards: Path
    few: Path
    challenge: Path
    corrupted: Path | None

    @property
    def photos(self) -> dict[str, int]:
        """How many photos there are to `train` on, with `few` labels, and to `test` on."""
        tested = read_json(self.challenge / "challenge.json", "delete it")["photos"]
        trained = {"train": self.shards, "few": self.few}
        return {**{name: open_shards(path).samples for name, path in trained.items()}, "test": tested}

    @property
    def original(self) -> Path:
        """The photos to test on, as they are, in class folders."""
        return self.challenge / "original" / "val"


def demo_set(photos: int, held_out: int, out: Path, workers: int) -> Source:
    """The demo set with exact masks, whose backgrounds go with the class in three photos of five.

    Those to train on and to test on are equally distributed, of other seeds.
    """
    splits, settings = [], []
    for seed, (name, size) in enumerate({"data": photos, "held_out": held_out}.items(), 1):
        settings.append(DemoSettings(photos=size, seed=seed, material=1.0, correlation=0.6, test_photos=9))
        write_demo_set(folder := out / name / "photos", settings[-1], workers)
        splits.append(Split(folder / "train", ImportOptions(folder=folder / "masks" / "train")))
    return Source(*splits, {"settings": asdict(settings[0])})


def own_photos(
    data: Path, masks: Path | None, detector: str | None, weights: Path | None, out: Path
) -> Source:
    """Class folders of photos, in `data/train` and `data/val`, or in `data`: then HELD_OUT percent of each
    class are held out.

    masks: a tree parallel to `data`. detector, weights: as `tools.masks` takes them.

    Raises:
        UserError: no such folder, or a bad choice of detector.
    """
    require_folder(data, "--data")

    def masks_of(name: str) -> DetectorOptions:
        return choose_detector(detector, masks and masks / name, weights, [])

    if split := (data / "train").is_dir() and (data / "val").is_dir():
        train, test = (Split(data / name, masks_of(name)) for name in ("train", "val"))
    else:
        train = test = Split(data, masks_of(""))
    chosen = train.detector
    record = {"data": data.resolve().name, "detector": chosen.name, "options": chosen.record()}
    record |= {"weights": weights.name} if weights else {}
    if not split:
        keys = list_photos(data).keys
        held_out = set(choose(keys, read_classes(None, keys).label, HELD_OUT, seed=0))
        rest = [key for key in keys if key not in held_out]
        train = train._replace(subset=_list(out / "data.txt", rest))
        test = test._replace(subset=_list(out / "held_out.txt", sorted(held_out)))
    return Source(train, test, {"source": record})


def prepare(source: Source, size: int, out: Path, workers: int) -> Prepared:
    """Pack a source, and make of it what tests need; what is finished is kept.

    size: of the views, in pixels; the challenge's images are twice as large.

    Raises:
        UserError: photos that cannot be used; or others than the runs in `out` were trained on.
    """
    train, test = source.train, source.test
    stores = out / "data", out / ("data" if train.photos == test.photos else "held_out")
    shards = pack_split(train, stores[0], out / "data" / "shards", workers)
    tested = pack_split(test, stores[1], out / "held_out" / "shards", workers)
    keys = list_photos(train.photos).keys
    if train.subset is not None:
        keys = [line.text for line in read_lines(train.subset, "--data")]
    few = choose(keys, read_classes(None, keys).label, FEW, seed=0)
    labelled = train._replace(subset=_list(out / "few.txt", few))
    few_shards = pack_split(labelled, stores[0], out / "few" / "shards", workers)
    _same(
        out / "packed.json",
        {path.parent.name: manifest_digest(path) for path in (shards, few_shards, tested)},
    )
    make_challenge(tested, out / "challenge", side=2 * size, workers=workers)
    found = Prepared(shards, few_shards, out / "challenge", None)
    if find_spec("imagecorruptions") is None:
        print("no corrupted copies: the package of tools.corruptions is not installed; it may be, later")
        return found
    corruptions = Corruptions(names=CORRUPTIONS, severities=SEVERITIES, size=size)
    make_corrupted(found.original, out / "corrupted", corruptions, workers)
    return found._replace(corrupted=out / "corrupted")


def _list(path: Path, keys: list[str]) -> Path:
    write_text(path, "\n".join(keys) + "\n")
    return path


def _same(path: Path, values: dict[str, Any]) -> None:
    """Write down what an experiment is of; a UserError where it is of something else."""
    text = json.dumps(values, indent=1) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{path}: the experiment there is of other photos or masks, {path.read_text(encoding='utf-8')}; "
            "choose another --out, or delete that folder"
        )
    write_text(path, text)
