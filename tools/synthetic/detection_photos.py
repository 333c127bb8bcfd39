"""Demo photos with several objects and the exact mask of each.

A photo is a demo photo with up to two more objects cut out of others, smaller, laid over it. Where one is
partly covered, its mask is the part that shows; if less than half shows it is difficult, if less than a tenth
it is no object.

A photo depends on the settings and its number alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from tools.cli import require
from tools.synthetic import demo_data
from tools.synthetic.demo_shapes import BACKGROUNDS, CLASSES

SPLITS = {"voc": ("trainval", "test"), "coco": ("train2017", "val2017")}
"""By layout: photos to train on, to test on."""
_MORE = 2  # objects that are laid over a photo, at most
_DIFFICULT, _HIDDEN = 0.5, 0.1


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """The content of a set; two with equal settings are equal byte for byte."""

    layout: str = "voc"
    """Or coco."""
    photos: int = 400
    """To train on."""
    test_photos: int = 100
    classes: int = 3
    """Classes in use, 1 to 9."""
    side: int = 160
    """Long side of a photo, in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.layout in SPLITS, f"--layout={self.layout}: give one of {', '.join(SPLITS)}")
        require(1 <= self.classes <= len(CLASSES), f"--classes={self.classes}: give 1 to {len(CLASSES)}")
        for option, value in (("--photos", self.photos), ("--test-photos", self.test_photos)):
            require(value >= 1, f"{option}={value}: give at least 1")
        require(self.side >= 64, f"--side={self.side}: give at least 64 pixels")
        require(self.seed >= 0, f"--seed={self.seed}: give 0 or more")

    def split(self, number: int) -> str:
        """The split that a photo is of."""
        return SPLITS[self.layout][number >= self.photos]


class Object(NamedTuple):
    """An object of a photo."""

    name: str
    difficult: bool
    mask: np.ndarray
    """bool [H, W]: the part that shows."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """xmin, ymin, xmax, ymax: the mask's first and last pixel, counted from 1."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) + 1 for axis in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def render(settings: DetectionSettings, number: int) -> tuple[np.ndarray, list[Object]]:
    """Draw photo `number`, uint8 [H, W, 3], and say what is where, the nearest last."""
    rng = np.random.default_rng([settings.seed, number])
    image, mask, name = _demo(rng, settings, number, 0)
    scale = settings.side / max(image.size)
    size = tuple(round(length * scale) for length in image.size)
    photo = np.array(image.resize(size, Image.Resampling.LANCZOS))
    objects = [(name, _scaled(mask, size))]
    for place in range(1, 1 + int(rng.integers(_MORE + 1))):
        image, mask, name = _demo(rng, settings, number, place)
        box = mask.getbbox()
        scale = min(photo.shape[:2]) * rng.uniform(0.3, 0.6) / max(box[2] - box[0], box[3] - box[1])
        size = tuple(round(length * scale) for length in (box[2] - box[0], box[3] - box[1]))
        cut = np.asarray(image.crop(box).resize(size, Image.Resampling.LANCZOS))
        shape = _scaled(mask.crop(box), size)
        top, left = (int(rng.integers(free - taken + 1)) for free, taken in zip(photo.shape, shape.shape))
        where = np.zeros(photo.shape[:2], bool)
        where[top : top + size[1], left : left + size[0]] = shape
        photo[where] = cut[shape]
        objects.append((name, where))
    return photo, _visible(objects)


def _demo(
    rng: np.random.Generator, settings: DetectionSettings, number: int, place: int
) -> tuple[Image.Image, Image.Image, str]:
    """A demo photo of any class and background, its mask, its class."""
    label, family = int(rng.integers(settings.classes)), int(rng.integers(len(BACKGROUNDS)))
    index = number * (1 + _MORE) + place
    chosen = demo_data.Photo("train", index, label, family, own_material=True)
    return (*demo_data.render(chosen, settings.seed), CLASSES[label])


def _scaled(mask: Image.Image, size: tuple[int, ...]) -> np.ndarray:
    """A mask at another size: bool, where the object covers half of a pixel or more."""
    return np.asarray(mask.resize(size, Image.Resampling.BOX)) > 127


def _visible(objects: list[tuple[str, np.ndarray]]) -> list[Object]:
    """Objects, of which each may cover those before it, less what is covered."""
    found, covered = [], np.zeros_like(objects[0][1])
    for name, mask in reversed(objects):
        shows = mask & ~covered
        share = shows.sum() / mask.sum()
        if share >= _HIDDEN:
            found.append(Object(name, bool(share < _DIFFICULT), shows))
        covered |= mask
    return found[::-1]
