"""Labelled photos without masks: CIFAR's pickles, lists, class folders; what is refused, and what training
reads."""

import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dali_bgaug import shards
from dali_bgaug.errors import UserError
from pipelines import LoaderConfig, build_loader
from pipelines.torchvision_loader import TorchvisionLoader
from tests.helpers.offline import read_samples
from tests.helpers.sets import image
from tools.cli import Part
from tools.offline.cifar import read_cifar
from tools.offline.inspect import packed_shards
from tools.offline.labelled import cifar_set, folder_set, listed_set, main, write_labelled

NAMES = ["cat", "truck"]


@pytest.fixture(autouse=True)
def _forget_what_was_read() -> None:
    read_cifar.cache_clear()


def _dump(path: Path, values: object, protocol: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(values, protocol))


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)


def _cifar10(folder: Path, protocol: int = 2) -> Path:
    """Eleven images to train on, two to test."""
    _dump(folder / "batches.meta", {"label_names": NAMES, "num_vis": 3072}, protocol)
    for number, count in enumerate((2, 2, 2, 2, 3), 1):
        batch = {"data": _images(count), "labels": [0, 1, 1][:count], "batch_label": f"{number} of 5"}
        _dump(folder / f"data_batch_{number}", batch, protocol)
    _dump(folder / "test_batch", {"data": _images(2), "labels": [1, 0]}, protocol)
    return folder


def _cifar100(folder: Path) -> Path:
    _dump(
        folder / "meta",
        {"fine_label_names": ["apple", "bee", "cup"], "coarse_label_names": ["food", "insects"]},
    )
    for split in ("train", "test"):
        values = {"data": _images(3), "fine_labels": [2, 0, 1], "coarse_labels": [0, 0, 1]}
        _dump(folder / split, values)
    return folder


def _run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["tools.labelled", *map(str, words), "--workers=1"])
    main()


# --- CIFAR


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar_10_is_packed_to_the_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _cifar10(tmp_path / "cifar-10-batches-py", protocol)
    _run(monkeypatch, "--cifar", data, "--out", tmp_path / "out")
    assert "other than the 50000 of the public set" in capsys.readouterr().out
    found = read_samples(tmp_path / "out", "train")
    assert len(found) == 11 and len(read_samples(tmp_path / "out", "test")) == 2
    sample = found["truck/00010"]  # the last of the last batch
    assert sample.label == 1
    pixels = np.asarray(Image.open(io.BytesIO(sample.photo)))
    row = _images(3)[2]
    assert pixels.shape == (32, 32, 3)
    assert pixels[0, 1].tolist() == [row[1], row[1025], row[2049]]
    assert pixels[31, 0].tolist() == [row[992], row[2016], row[3040]]
    manifest = shards.open_shards(tmp_path / "out" / "train")
    assert (manifest.classes, manifest.mask_size, manifest.donors) == (NAMES, 0, 0)
    assert manifest.options["labelled"]["set"] == "cifar10"


def test_cifar_100_has_fine_labels(tmp_path: Path) -> None:
    found = cifar_set(_cifar100(tmp_path / "cifar-100-python"), "test")
    assert found.classes == ["apple", "bee", "cup"]
    assert [row.key for row in found.rows] == ["cup/00000.png", "apple/00001.png", "bee/00002.png"]


def test_python_2s_own_pickle_is_read(tmp_path: Path) -> None:
    """Opcodes as Python 2 wrote them: text and bytes are one kind of string there."""
    data = bytes(range(256)) * 12
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + len(data).to_bytes(4, "little") + data + b"tb"
    )
    _cifar100(tmp_path)
    (tmp_path / "train").write_bytes(b"\x80\x02}(U\x04data" + array + b"U\x0bfine_labels](K\x02eu.")
    found = read_cifar(tmp_path, "train")
    assert found.labels.tolist() == [2]
    assert found.images[0, 7, 31].tolist() == [255, 255, 255] and found.images[0, 0, 1].tolist() == [1, 1, 1]


class _Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return sys.exit, ("a file was run",)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": _Evil(), "labels": [0]}, r"asks for sys.exit, .* not run"),
        ({"data": np.float64(3), "labels": [0]}, r"asks for numpy.*scalar"),
        ([1, 2], r"holds a list, not a dict"),
        ({"data": _images(1)}, r"has no labels \(it has data\)"),
        ({"data": _images(2), "labels": [0]}, r"2 images, but 1 labels"),
        ({"data": _images(2), "labels": [0, 2]}, r"labels\[1\] is 2, but batches.meta has 2 classes, 0 to 1"),
        ({"data": _images(2), "labels": [0, True]}, r"labels\[1\] is True"),
        ({"data": _images(2)[:, :9], "labels": [0, 1]}, r"data is no array of bytes, \[N, 3072\]"),
        ({"data": _images(2).astype(np.int32), "labels": [0, 1]}, r"data is no array of bytes"),
        ({"data": [[0] * 3072], "labels": [0]}, r"data is no array of bytes"),
    ],
)
def test_a_file_that_is_not_cifars_is_refused(tmp_path: Path, values: object, said: str) -> None:
    _dump(_cifar10(tmp_path) / "data_batch_3", values)
    with pytest.raises(UserError, match=rf"data_batch_3: .*{said}"):
        read_cifar(tmp_path, "train")


def test_damage_wrong_folders_and_wrong_counts_are_told(tmp_path: Path) -> None:
    folder = _cifar10(tmp_path / "cifar")
    with pytest.raises(UserError, match=rf"--cifar={tmp_path}: has neither batches.meta"):
        read_cifar(tmp_path, "train")
    whole = (folder / "data_batch_2").read_bytes()
    for part in (whole[:-1], whole[:3000], whole[:20], b"", b"no pickle", whole.replace(b"u1", b"Q9", 1)):
        (folder / "data_batch_2").write_bytes(part)
        with pytest.raises(UserError, match=r"data_batch_2: (truncated|data is no array)"):
            read_cifar(folder, "train")
    (folder / "data_batch_2").unlink()
    with pytest.raises(UserError, match=r"data_batch_2: cannot be read \(No such file"):
        read_cifar(folder, "train")
    (folder / "data_batch_2").write_bytes(whole)
    _dump(folder / "batches.meta", {"label_names": NAMES, "num_cases_per_batch": 2})
    with pytest.raises(UserError, match=r"data_batch_5: 3 images, but batches.meta says 2 a file"):
        read_cifar(folder, "train")
    _dump(folder / "batches.meta", {"label_names": ["a", "../b"]})
    with pytest.raises(UserError, match=r"batches.meta: label_names has '../b'"):
        read_cifar(folder, "train")


# --- lists


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Photos two folders deep, and a list of them as Places-205 has it."""
    colours = {
        "a/abbey/one.png": (200, 0, 0),
        "a/abbey/with blank.png": (190, 0, 0),
        "b/bar/in/two.png": (0, 0, 200),
    }
    for name, colour in colours.items():
        image(tmp_path / "images" / name, colour)
    (tmp_path / "train.csv").write_text(
        "a/abbey/one.png 0\r\n/a/abbey/with blank.png 0\r\nb/bar/in/two.png 2\r\n"
    )
    return tmp_path


def test_a_list_says_photos_and_labels(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--photos", places / "images", "--list", places / "train.csv", "--class-count", 4
    _run(monkeypatch, *words, "--out", places / "out")
    found = read_samples(places, "out")
    assert {key: sample.label for key, sample in found.items()} == {
        "a/abbey/one": 0,
        "a/abbey/with_blank": 0,
        "b/bar/in/two": 2,
    }
    assert found["a/abbey/one"].photo == (places / "images/a/abbey/one.png").read_bytes()
    assert shards.open_shards(places / "out").classes == ["0", "1", "2", "3"]
    report = json.loads((places / "out-report.json").read_text())
    assert report["oddities"] == {"classes that no photo is of": {"count": 2, "example": "1"}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("path label", r"line 2 'path label': expected 'PATH LABEL'"),
        ("b/bar/in/two.png,2", r"line 2 'b/bar/in/two.png,2': expected"),
        ("b/bar/in/two.png -1", r"line 2 .*: expected"),
        ("b/bar/in/two.png 2.0", r"line 2 .*: expected"),
        ("7", r"line 2 '7': expected"),
        ("b/bar/in/two.png 3", r"line 2 .*: label 3 of 3 classes \(--class-count\), which are 0 to 2"),
        ("./a/abbey/one.png 1", r"line 2 .*: the photo comes twice \(line 1 "),
        ("a/../../x.png 1", r"line 2 .*: the path leads out of --photos"),
    ],
)
def test_a_line_that_is_not_understood_is_shown(places: Path, line: str, said: str) -> None:
    path = places / "list.txt"
    path.write_text(f"a/abbey/one.png 0\n{line}\n")
    with pytest.raises(UserError, match=rf"--list={path}: {said}"):
        listed_set(places / "images", path, 3)


def test_missing_photos_end_it_and_are_named_by_line(places: Path) -> None:
    path = places / "list.txt"
    path.write_text("a/abbey/one.png 0\ngone.png 1\nb/bar/in/two.png 1\ngone too.png 0\n")
    with pytest.raises(
        UserError, match=r"2 photos stop this:\n.*line 2: .*/gone.png: cannot be read(.|\n)*line 4: "
    ):
        write_labelled(listed_set(places / "images", path), places / "out")
    assert not list((places / "out").glob("*"))
    with pytest.raises(
        UserError, match=rf"--list={path}: line 1: .*a/abbey/one.png: cannot be read \(No such"
    ):
        write_labelled(listed_set(places, path), places / "out")  # the wrong root: said at once


# --- all


def test_bad_photos_are_left_out_and_listed(places: Path) -> None:
    good = (places / "images/a/abbey/one.png").read_bytes()
    for name, data in (("a/aa.jpg", b""), ("a/half.png", good[:-30]), ("b/none.jpg", b"no image" * 40)):
        (places / "images" / name).write_bytes(data)
    report = write_labelled(folder_set(places / "images"), places / "out")
    assert [(item.photo, item.reason) for item in report.left_out] == [
        ("a/aa.jpg", "empty file"),
        ("a/half.png", "refused by the training decoder"),
        ("b/none.jpg", "refused by the training decoder"),
    ]
    manifest = shards.open_shards(places / "out")
    assert (manifest.samples, manifest.classes, len(manifest.left_out)) == (3, ["a", "b"], 3)


def test_it_goes_on_where_it_was_and_refuses_another_set(tmp_path: Path) -> None:
    train = cifar_set(_cifar10(tmp_path / "cifar"), "train")
    whole = write_labelled(train, tmp_path / "whole", per_shard=4)
    assert (whole.photos, whole.files) == (11, 3)
    write_labelled(train, tmp_path / "parts", per_shard=4, part=Part(2, 2))
    assert not (tmp_path / "parts" / "manifest.json").exists()
    report = write_labelled(train, tmp_path / "parts", per_shard=4)
    assert (report.files, report.kept) == (3, 1)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "parts").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert write_labelled(train, tmp_path / "whole", per_shard=4).kept == 3
    test = cifar_set(tmp_path / "cifar", "test")
    with pytest.raises(UserError, match=r"manifest.json: packed from other photos"):
        write_labelled(test, tmp_path / "whole")


def test_loaders_read_them_and_refuse_views_that_need_masks(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_labelled(cifar_set(_cifar10(tmp_path / "cifar"), "train"), out)
    common = {"shards": out, "batch_size": 4, "device": "cpu", "threads": 1, "crop": {"size": 48}}
    plain = LoaderConfig(pipeline="supervised", background={"kind": "none"}, **common)
    with build_loader(plain) as loader:
        batch = next(iter(loader))
    assert batch["image"].shape == (4, 3, 48, 48)
    assert set(batch["label"].tolist()) <= {0, 1}
    for changed in (
        {"background": {"kind": "rm"}},
        {"background": {"kind": "none"}, "crop": {"size": 48, "fg_min": 0.1}},
    ):
        masked = LoaderConfig(pipeline="supervised", **common | changed)
        for build in (build_loader, TorchvisionLoader):
            with pytest.raises(UserError, match=rf"data.shards={out}: has no masks"):
                build(masked)
    lines = list(packed_shards(out, True, 8))
    assert "without masks" in lines and (tmp_path / "out-inspect.png").is_file()
