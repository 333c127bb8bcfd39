"""Make a small detection set in VOC's or COCO's layout from the demo shapes and their exact masks.

    python -m tools.detection_data --out out/shapes                  in VOC's layout: boxes
    python -m tools.detection_data --out out/coco --layout coco      in COCO's: boxes and masks

    OUT/VOC2007/Annotations/000000.xml                 OUT/annotations/instances_{train2017,val2017}.json
                ImageSets/Main/{trainval,test}.txt         train2017/000000000000.jpg
                JPEGImages/000000.jpg                      val2017/000000000400.jpg
    OUT/detection.json                                     the settings; there once the set is complete

Both have the same photos and objects (`detection_photos.py`). An object that is difficult in VOC's layout is
a crowd in COCO's, which is neither right nor wrong in testing either; nobody trains with it.
"""

import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from dali_bgaug.files import atomic, read_json, write_json, write_text
from tools.cli import default_workers, process, run, tool_parser
from tools.synthetic.demo_shapes import CLASSES
from tools.synthetic.detection_photos import SPLITS, DetectionSettings, Object, render
from tools.synthetic.segmentations import outline, run_lengths
from tools.synthetic.settings import read_finished

VERSION = 1  # goes up whenever the same settings give other pixels
_CHUNK = 25  # photos a job
_OBJECTS = "annotations/unfinished"
"""Where COCO's annotations are a file a photo, until they are one a split."""


def category_id(label: int) -> int:
    """COCO's number of a class: like its own not without gaps, so that nobody takes it for a place."""
    return 10 * label + 3


def voc_annotation(stem: str, shape: tuple[int, ...], objects: list[Object]) -> str:
    """A photo's objects as VOC's XML."""
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


def coco_annotation(stem: str, shape: tuple[int, ...], objects: list[Object]) -> str:
    """A photo and its objects as entries of COCO's JSON, but for the objects' numbers."""
    height, width, _ = shape
    entries = []
    for one in objects:
        left, top, right, bottom = one.box
        lengths = {"size": [height, width], "counts": run_lengths(one.mask)}
        entry = {
            "image_id": int(stem),
            "category_id": category_id(CLASSES.index(one.name)),
            "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
            "area": int(one.mask.sum()),
            "iscrowd": int(one.difficult),
            "segmentation": lengths if one.difficult else outline(one.mask),
        }
        entries.append(entry)
    image = {"id": int(stem), "file_name": f"{stem}.jpg", "width": width, "height": height}
    return json.dumps({"image": image, "annotations": entries}) + "\n"


def _files(out: Path, settings: DetectionSettings, number: int) -> tuple[Path, Path]:
    """A photo, and the file of its objects, which is there once the photo is."""
    if settings.layout == "voc":
        stem, folder = f"{number:06d}", out / "VOC2007"
        return folder / "JPEGImages" / f"{stem}.jpg", folder / "Annotations" / f"{stem}.xml"
    stem = f"{number:012d}"
    return out / settings.split(number) / f"{stem}.jpg", out / _OBJECTS / f"{stem}.json"


def _write_photos(out: Path, settings: DetectionSettings, numbers: range) -> None:
    describe = {"voc": voc_annotation, "coco": coco_annotation}[settings.layout]
    for number in numbers:
        path, described = _files(out, settings, number)
        if described.exists():  # from a run that was interrupted
            continue
        photo, objects = render(settings, number)
        Image.fromarray(photo).save(content := io.BytesIO(), "JPEG", quality=90)
        with atomic(path) as temporary:
            temporary.write_bytes(content.getvalue())
        write_text(described, describe(path.stem, photo.shape, objects))


def _write_list(out: Path, settings: DetectionSettings, split: str, numbers: range) -> None:
    """What a layout has once a split: of VOC its photos' names, of COCO all its objects."""
    described = [_files(out, settings, number)[1] for number in numbers]
    if settings.layout == "voc":
        lines = "".join(f"{path.stem}\n" for path in described)
        write_text(out / "VOC2007/ImageSets/Main" / f"{split}.txt", lines)
        return
    photos = [read_json(path, "delete it") for path in described]
    entries = [entry for photo in photos for entry in photo["annotations"]]
    values: dict[str, Any] = {
        "images": [photo["image"] for photo in photos],
        "categories": [
            {"id": category_id(label), "name": name} for label, name in enumerate(CLASSES[: settings.classes])
        ],
        # From 1 on: COCO's metric takes a match with object 0 for none.
        "annotations": [{"id": place, **entry} for place, entry in enumerate(entries, 1)],
    }
    write_text(out / "annotations" / f"instances_{split}.json", json.dumps(values) + "\n")


def write_detection_set(out: Path, settings: DetectionSettings, workers: int) -> None:
    """Write the set below `out`, or the rest of it after an interruption; nothing if it is complete.

    Its bytes do not depend on the number of workers.

    Raises UserError if `out` holds anything else, a set of other settings included.
    """
    finished, started = out / "detection.json", out / "detection.json.unfinished"
    wanted = {"version": VERSION, **asdict(settings)}
    if read_finished(finished, started, wanted, "a detection set", layout="voc"):
        return
    write_json(started, wanted)
    count = settings.photos + settings.test_photos
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    jobs = ((out, settings, chunk) for chunk in chunks)
    for _ in process(_write_photos, jobs, list(map(len, chunks)), workers, "detection photos"):
        pass
    parts = range(settings.photos), range(settings.photos, count)
    for split, numbers in zip(SPLITS[settings.layout], parts, strict=True):
        _write_list(out, settings, split, numbers)
    shutil.rmtree(out / _OBJECTS, ignore_errors=True)
    started.rename(finished)


def main() -> None:
    default = DetectionSettings()
    parser = tool_parser("tools.detection_data", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the set, new or interrupted")
    add("--layout", choices=list(SPLITS), default=default.layout, help="of the files (%(default)s)")
    add("--photos", type=int, default=default.photos, help="to train on (%(default)s)")
    add("--test-photos", type=int, default=default.test_photos, help="to test on (%(default)s)")
    add("--classes", type=int, default=default.classes, help="1 to 9 (%(default)s)")
    add("--side", type=int, default=default.side, help="long side of a photo, in pixels (%(default)s)")
    add("--seed", type=int, default=default.seed)
    add("--workers", type=int, default=default_workers(), help="processes")
    options = vars(parser.parse_args())
    out, workers = options.pop("out"), options.pop("workers")
    write_detection_set(out, DetectionSettings(**options), workers)


if __name__ == "__main__":
    run(main)
