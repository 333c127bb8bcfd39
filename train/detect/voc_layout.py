"""VOC's layout: an XML file a photo, lists of photos.

ROOT[/VOCdevkit]/VOC2007/Annotations/000005.xml
                         ImageSets/Main/trainval.txt    a name a line
                         JPEGImages/000005.jpg
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from dali_bgaug.errors import UserError, some
from train.detect.objects import AnnotatedPhoto, DetectionSet, PhotoObjects
from train.detect.voc import Detections, Objects

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_PIXEL = np.array([1, 1, 0, 0], np.float32)
"""VOC counts pixels from 1, the last one being inside: left and top are one less, between pixels."""


def read_voc(
    root: Path, splits: Sequence[str], classes: Sequence[str] | None = None, option: str = "data"
) -> DetectionSet:
    """The photos of splits such as VOC2007/trainval, in their order.

    Args:
        root: the folder of VOC2007 and VOC2012, or the one that VOCdevkit is in.
        classes: those of the training; None: all that there are, by name, as VOC's twenty are.
        option: where `root` comes from, for errors.

    Raises:
        UserError: what is missing or wrong, by file, key and value.
    """
    if (root / "VOCdevkit").is_dir():
        root = root / "VOCdevkit"
    found = [one for split in splits for one in _read_split(root, split, option)]
    names = tuple(classes or sorted({name for *_, objects in found for name, _, _ in objects}))
    places = {name: place for place, name in enumerate(names)}
    photos, keys = [], set()
    for key, file, photo, width, height, objects in found:
        if key in keys:
            raise UserError(f"{key}: twice in {', '.join(splits)}; leave one out")
        keys.add(key)
        if unknown := [name for name, _, _ in objects if name not in places]:
            raise UserError(
                f"{file}: object.name={unknown[0]}: no class of the training ({some(names)}); give photos of "
                "these classes"
            )
        boxes = np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4) - _PIXEL
        labels = np.array([places[name] for name, _, _ in objects], np.int64)
        difficult = np.array([hard for _, _, hard in objects], bool)
        photos.append(AnnotatedPhoto(key, photo, width, height, PhotoObjects(boxes, labels, difficult, None)))
    return DetectionSet(names, photos, {})


_Object = tuple[str, tuple[float, ...], bool]
"""Name, corners as in the file, whether difficult."""


def _read_split(root: Path, split: str, option: str) -> list[tuple[str, Path, Path, int, int, list[_Object]]]:
    year, _, name = split.partition("/")
    listed = root / year / "ImageSets/Main" / f"{name}.txt"
    photos = root / year / "JPEGImages"
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
        there = {entry.name for entry in os.scandir(photos)}
    except UnicodeDecodeError:
        raise UserError(f"{listed}: is not UTF-8; save it in UTF-8") from None
    except OSError as error:
        raise UserError(
            f"{option}={root}: {error.filename}: cannot be read ({error.strerror}); give the folder that has "
            f"{year}, or VOCdevkit/{year}"
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not (stem := line.strip()):
            continue
        if len(stem.split()) > 1 or "/" in stem:
            raise UserError(
                f"{listed}: line {number}: {line!r} is not a photo's name; give a list such as trainval, not "
                "one of a class"
            )
        if f"{stem}.jpg" not in there:
            raise UserError(
                f"{listed}: line {number}: {photos / stem}.jpg is missing; unpack the photos anew"
            )
        file = root / year / "Annotations" / f"{stem}.xml"
        found.append((f"{year}/{stem}", file, photos / f"{stem}.jpg", *_read_file(file)))
    if not found:
        raise UserError(f"{listed}: names no photo; give another split")
    return found


def _read_file(file: Path) -> tuple[int, int, list[_Object]]:
    """Width, height and objects of a photo."""
    root = _parse(file)
    width, height = (int(_number(file, root, f"size/{side}")) for side in ("width", "height"))
    if width < 1 or height < 1:
        raise UserError(f"{file}: size={width} x {height}: must be 1 or more; correct the file")
    return width, height, [_read_object(file, one) for one in root.findall("object")]


def _parse(file: Path) -> ElementTree.Element:
    """An XML file's root. One that declares a document type is refused unread: only that can define entities,
    by which a small file can grow without bounds or read others."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); unpack the annotations anew") from error
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not UTF-8; save it in UTF-8") from None
    if "<!DOCTYPE" in text:
        raise UserError(f"{file}: <!DOCTYPE: VOC's files declare no document type; delete the declaration")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{file}: no XML ({error}); unpack the annotations anew") from error


def _read_object(file: Path, one: ElementTree.Element) -> _Object:
    name = (one.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{file}: object.name: missing or empty; give the object's class")
    hard = (one.findtext("difficult") or "0").strip()
    if hard not in ("0", "1"):
        raise UserError(f"{file}: object.difficult={hard!r}: must be 0 or 1; correct the file")
    box = tuple(_number(file, one, f"bndbox/{corner}") for corner in _CORNERS)
    if box[0] > box[2] or box[1] > box[3]:
        raise UserError(
            f"{file}: object.bndbox={box}: the first pixel is beyond the last (xmin, ymin, xmax, ymax)"
        )
    return name, box, hard == "1"


def _number(file: Path, element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        key = ".".join([element.tag, *path.split("/")])
        raise UserError(f"{file}: {key}={text!r}: not a number; correct the file")
    return value


def voc_objects(photo: AnnotatedPhoto) -> Objects:
    """A photo's objects as VOC's metric takes them."""
    return Objects(photo.objects.boxes + _PIXEL, photo.objects.labels, photo.objects.difficult)


def voc_detections(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Detections:
    """A photo's detections as VOC's metric takes them. boxes: float [N, 4], between pixels."""
    return Detections(boxes + _PIXEL, labels, scores)
