"""Make a small detection set in VOC's layout from the demo shapes, boxes from their exact masks.

    python -m tools.detection_data --out out/detection

    OUT/VOC2007/Annotations/000000.xml
                ImageSets/Main/{trainval,test}.txt
                JPEGImages/000000.jpg
    OUT/detection.json                              the settings; there once the set is complete

A photo is a demo photo with up to two more objects cut out of others, smaller, laid over it. Where one is
partly covered, the box is that of the part that shows; if less than half shows it is difficult, if less than
a tenth it is not annotated.

A photo depends on the settings and its number alone, never on the number of workers.
"""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from dali_bgaug.files import atomic, write_text
from tools.cli import default_workers, process, require, run, tool_parser
from tools.synthetic import demo_data
from tools.synthetic.demo_shapes import BACKGROUNDS, CLASSES
from tools.synthetic.settings import read_finished

VERSION = 1  # goes up whenever the same settings give other pixels
SPLITS = ("trainval", "test")
_CHUNK = 25  # photos a job
_MORE = 2  # objects that are laid over a photo, at most
_DIFFICULT, _HIDDEN = 0.5, 0.1


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """The content of a set; two with equal settings are equal byte for byte."""

    photos: int = 400
    """Of trainval."""
    test_photos: int = 100
    classes: int = 3
    """Classes in use, 1 to 9."""
    side: int = 160
    """Long side of a photo, in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        require(1 <= self.classes <= len(CLASSES), f"--classes={self.classes}: give 1 to {len(CLASSES)}")
        for option, value in (("--photos", self.photos), ("--test-photos", self.test_photos)):
            require(value >= 1, f"{option}={value}: give at least 1")
        require(self.side >= 64, f"--side={self.side}: give at least 64 pixels")
        require(self.seed >= 0, f"--seed={self.seed}: give 0 or more")


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


def _annotation(stem: str, shape: tuple[int, ...], objects: list[Object]) -> str:
    """VOC's XML."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{stem}.jpg"
    size = ElementTree.SubElement(root, "size")
    for name, value in zip(("height", "width", "depth"), shape, strict=True):
        ElementTree.SubElement(size, name).text = str(value)
    for one in objects:
        entry = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(entry, "name").text = one.name
        ElementTree.SubElement(entry, "difficult").text = str(int(one.difficult))
        box = ElementTree.SubElement(entry, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), one.box, strict=True):
            ElementTree.SubElement(box, name).text = str(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode") + "\n"


def _write_photos(folder: Path, settings: DetectionSettings, numbers: range) -> None:
    for number in numbers:
        stem = f"{number:06d}"
        path = folder / "Annotations" / f"{stem}.xml"
        if path.exists():  # from a run that was interrupted
            continue
        photo, objects = render(settings, number)
        Image.fromarray(photo).save(content := io.BytesIO(), "JPEG", quality=90)
        with atomic(folder / "JPEGImages" / f"{stem}.jpg") as temporary:
            temporary.write_bytes(content.getvalue())
        write_text(path, _annotation(stem, photo.shape, objects))


def write_detection_set(out: Path, settings: DetectionSettings, workers: int) -> None:
    """Write the set below `out`, or the rest of it after an interruption; nothing if it is complete.

    Raises UserError if `out` holds anything else, a set of other settings included.
    """
    finished, started = out / "detection.json", out / "detection.json.unfinished"
    wanted = {"version": VERSION, **asdict(settings)}
    if read_finished(finished, started, wanted, "a detection set"):
        return
    write_text(started, json.dumps(wanted, indent=2) + "\n")
    folder, count = out / "VOC2007", settings.photos + settings.test_photos
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    jobs = ((folder, settings, chunk) for chunk in chunks)
    for _ in process(_write_photos, jobs, list(map(len, chunks)), workers, "detection photos"):
        pass
    parts = range(settings.photos), range(settings.photos, count)
    for split, numbers in zip(SPLITS, parts, strict=True):
        write_text(
            folder / "ImageSets/Main" / f"{split}.txt", "".join(f"{number:06d}\n" for number in numbers)
        )
    started.rename(finished)


def main() -> None:
    default = DetectionSettings()
    parser = tool_parser("tools.detection_data", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the set, new or interrupted")
    add("--photos", type=int, default=default.photos, help="of trainval (%(default)s)")
    add("--test-photos", type=int, default=default.test_photos, help="of test (%(default)s)")
    add("--classes", type=int, default=default.classes, help="1 to 9 (%(default)s)")
    add("--side", type=int, default=default.side, help="long side of a photo, in pixels (%(default)s)")
    add("--seed", type=int, default=default.seed)
    add("--workers", type=int, default=default_workers(), help="processes")
    options = vars(parser.parse_args())
    out, workers = options.pop("out"), options.pop("workers")
    write_detection_set(out, DetectionSettings(**options), workers)


if __name__ == "__main__":
    run(main)
