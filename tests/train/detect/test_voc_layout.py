"""VOC's files, written by hand."""

from pathlib import Path

import numpy as np
import pytest

from dali_bgaug.errors import UserError
from train.detect.voc import evaluate
from train.detect.voc_layout import read_voc, voc_detections, voc_objects

OBJECT = """<object><name>{name}</name><difficult>{hard}</difficult>
  <part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
  <bndbox><xmax>30</xmax><xmin>11</xmin><ymin>21.5</ymin><ymax>40</ymax></bndbox></object>"""
FILE = "<annotation><size><width>64</width><height>48</height></size>{}</annotation>"


def _write(root: Path, stem: str, *objects: str, year: str = "VOC2007", split: str = "trainval") -> Path:
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / year / name).mkdir(parents=True, exist_ok=True)
    (root / year / f"JPEGImages/{stem}.jpg").touch()
    file = root / year / f"Annotations/{stem}.xml"
    file.write_text(FILE.format("".join(objects)))
    with (root / year / f"ImageSets/Main/{split}.txt").open("a") as listed:
        listed.write(f"{stem}\n")
    return file


def _object(name: str, hard: int = 0) -> str:
    return OBJECT.format(name=name, hard=hard)


@pytest.mark.parametrize("below", [".", "VOCdevkit"])
def test_photos_of_both_years(tmp_path: Path, below: str) -> None:
    root = tmp_path / below
    _write(root, "000007", _object("dog"), _object("cat", 1))
    _write(root, "000005")
    _write(root, "2008_000001", _object("cow"), year="VOC2012")
    read = read_voc(tmp_path, ["VOC2007/trainval", "VOC2012/trainval"])
    assert read.classes == ("cat", "cow", "dog")
    assert [photo.key for photo in read.photos] == [
        *("VOC2007/000007", "VOC2007/000005", "VOC2012/2008_000001"),
    ]
    first, empty, _ = read.photos
    assert (first.width, first.height, first.path) == (64, 48, root / "VOC2007/JPEGImages/000007.jpg")
    assert first.objects.boxes.tolist() == [[10, 20.5, 30, 40]] * 2
    assert first.objects.labels.tolist() == [2, 0]
    assert first.objects.difficult.tolist() == [False, True]
    assert empty.objects.boxes.shape == (0, 4)


def test_the_metric_sees_the_files_own_pixels(tmp_path: Path) -> None:
    _write(tmp_path, "a", _object("cat"))
    [photo] = read_voc(tmp_path, ["VOC2007/trainval"]).photos
    truth = voc_objects(photo)
    assert truth.boxes.tolist() == [[11, 21.5, 30, 40]]
    found = voc_detections(photo.objects.boxes, np.array([0]), np.array([0.5]))
    assert evaluate({"a": truth}, {"a": found}, ["cat"]).ap == 100


def test_no_word_on_difficulty_is_none(tmp_path: Path) -> None:
    _write(tmp_path, "a", _object("cat").replace("<difficult>0</difficult>", ""))
    [photo] = read_voc(tmp_path, ["VOC2007/trainval"]).photos
    assert photo.objects.difficult.tolist() == [False]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmin>11</xmin>", "<xmin>x</xmin>", r"a.xml: object.bndbox.xmin='x': not a number"),
        ("<xmin>11</xmin>", "<xmin>nan</xmin>", r"a.xml: object.bndbox.xmin='nan': not a number"),
        ("<xmin>11</xmin>", "", r"a.xml: object.bndbox.xmin=None: not a number"),
        ("<xmin>11</xmin>", "<xmin>31</xmin>", r"a.xml: object.bndbox=\(31.0, 21.5, 30.0, 40.0\)"),
        ("<name>cat</name>", "", "a.xml: object.name: missing"),
        ("<difficult>0", "<difficult>2", "a.xml: object.difficult='2': must be 0 or 1"),
        ("<width>64", "<width>0", "a.xml: size=0 x 48"),
        ("</annotation>", "", "a.xml: no XML"),
        ("<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>", "a.xml: <!DOCTYPE: .* no document"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = _write(tmp_path, "a", _object("cat"))
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_voc(tmp_path, ["VOC2007/trainval"])


def test_another_encoding(tmp_path: Path) -> None:
    """In which a document type would not be seen."""
    _write(tmp_path, "a").write_text("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a/>", "utf-16")
    with pytest.raises(UserError, match="a.xml: is not UTF-8"):
        read_voc(tmp_path, ["VOC2007/trainval"])


def test_what_is_missing(tmp_path: Path) -> None:
    file = _write(tmp_path, "a", _object("cat"))
    with pytest.raises(
        UserError, match=r"VOC2007/ImageSets/Main/val.txt: cannot be read .* VOCdevkit/VOC2007"
    ):
        read_voc(tmp_path, ["VOC2007/val"])
    with pytest.raises(UserError, match="a.xml: object.name='?cat'?: no class of the training .dog."):
        read_voc(tmp_path, ["VOC2007/trainval"], ["dog"])
    with pytest.raises(UserError, match="VOC2007/a: twice in"):
        read_voc(tmp_path, ["VOC2007/trainval"] * 2)
    listed = tmp_path / "VOC2007/ImageSets/Main/trainval.txt"
    listed.write_text("a  1\n")
    with pytest.raises(UserError, match="trainval.txt: line 1: 'a  1' is not a photo's name"):
        read_voc(tmp_path, ["VOC2007/trainval"])
    listed.write_text("\n")
    with pytest.raises(UserError, match="trainval.txt: names no photo"):
        read_voc(tmp_path, ["VOC2007/trainval"])
    listed.write_text("a\nb\n")
    with pytest.raises(UserError, match="trainval.txt: line 2: .*b.jpg is missing"):
        read_voc(tmp_path, ["VOC2007/trainval"])
    listed.write_text("a\n")
    file.unlink()
    with pytest.raises(UserError, match="a.xml: cannot be read"):
        read_voc(tmp_path, ["VOC2007/trainval"])
