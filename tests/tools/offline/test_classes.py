"""Classes by folders and by lists: each kind of list is read as what it is, or refused with its line."""

from pathlib import Path

import pytest

from dali_bgaug.errors import UserError
from tools.offline.classes import read_classes

KEYS = ["n01/1.jpg", "n01/2.jpg", "n02/3.jpg"]
FLAT = ["a.jpg", "b.jpg", "c.jpg"]
WORDS = [" lead/c.jpg", "golden retriever/b.jpg", "tabby cat/a.jpg"]
NFC, NFD = "caf\u00e9", "cafe\u0301"


def _read(tmp_path: Path, text: str, keys: list[str]) -> tuple[list[int], list[str]]:
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    label, names, _ = read_classes(path, keys)
    return label.tolist(), names


def test_classes_are_folders() -> None:
    label, names, oddities = read_classes(None, KEYS)
    assert (label.tolist(), names, oddities) == ([0, 0, 1], ["n01", "n02"], {})
    label, names, _ = read_classes(None, ["1.jpg", "a/b/2.jpg"])
    assert (label.tolist(), names) == ([0, 1], ["", "a"])


@pytest.mark.parametrize(
    ("text", "keys", "label", "names"),
    [
        ("n02\nn09\nn01\n", KEYS, [2, 2, 0], ["n02", "n09", "n01"]),
        ("\ufeffn02\r\nn01\r\n", KEYS, [1, 1, 0], ["n02", "n01"]),
        ("n02 goldfish\nn01 tench, Tinca tinca\n", KEYS, [1, 1, 0], ["n02", "n01"]),
        ("n00 great white\nn01 tench\nn02\n", KEYS, [1, 1, 2], ["n00", "n01", "n02"]),
        (
            "tabby cat\ngolden retriever\n lead\n",
            WORDS,
            [2, 1, 0],
            ["tabby cat", "golden retriever", " lead"],
        ),
        ("tabby cat\nold dog\ngolden retriever\n lead", WORDS, [3, 2, 0], None),
        (f"{NFC}\nb\n", ["b/1.jpg", f"{NFD}/1.jpg"], [1, 0], [NFD, "b"]),
        ("2\n1\n0\n", ["0/a.jpg", "2/b.jpg"], [2, 0], ["2", "1", "0"]),
    ],
    ids=[
        "names",
        "byte-order mark",
        "synsets",
        "synsets lacking",
        "blanks",
        "blanks lacking",
        "NFC",
        "digits",
    ],
)
def test_lists_of_classes(
    text: str, keys: list[str], label: list[int], names: list[str] | None, tmp_path: Path
) -> None:
    found = _read(tmp_path, text, keys)
    assert found[0] == label
    assert names in (None, found[1])


@pytest.mark.parametrize(
    ("text", "keys", "label", "names"),
    [
        ("1.jpg b\n2.jpg a\n\nn02/3.jpg b\n", KEYS, [1, 0, 1], ["a", "b"]),
        ("1.jpg 7\n2.jpg 0\n./n02/3.jpg 2\n", KEYS, [7, 0, 2], list("01234567")),
        ("a.jpg 10\nb.jpg 2\nc.jpg 0\n", FLAT, [10, 2, 0], [*"0123456789", "10"]),
        ("\ufeffa.jpg\t02\nb.jpg\t1\nc.jpg  0\n", FLAT, [2, 1, 0], ["0", "1", "2"]),
        ("a.jpg\ttabby cat\nb.jpg old dog\nc.jpg cat\n", FLAT, [2, 1, 0], ["cat", "old dog", "tabby cat"]),
        ("tabby cat/a.jpg x\nb.jpg y\n lead/c.jpg x", WORDS, [0, 1, 0], ["x", "y"]),
        ("a.jpg 15075141\nb.jpg 01440764\nc.jpg 01443537", FLAT, [2, 0, 1], None),
        (f"a.jpg {NFC}\nb.jpg {NFD}\n{NFC}.jpg b", ["a.jpg", "b.jpg", f"{NFD}.jpg"], [1, 1, 0], ["b", NFC]),
    ],
    ids=["names", "labels", "ten", "tabs", "several words", "paths with blanks", "WordNet", "NFC"],
)
def test_lists_of_photos(
    text: str, keys: list[str], label: list[int], names: list[str] | None, tmp_path: Path
) -> None:
    found = _read(tmp_path, text, keys)
    assert found[0] == label
    assert names in (None, found[1])


NUMBERS = "a.jpg 10\nb.jpg 2\nc.jpg {}\n"
WNIDS = "a.jpg n3\nb.jpg n1\nc.jpg n1\n"


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        (
            "photo class\n" + NUMBERS.format(0),
            FLAT,
            "line 1 'photo class': the class is no number, unlike in",
        ),
        ("photo class\n" + WNIDS, FLAT, "line 1 'photo class' names no photo, and .*; take a header off"),
        (NUMBERS.format(-1), FLAT, "line 3 'c.jpg -1': -1 is no label"),
        (NUMBERS.format("0.0"), FLAT, "line 3 'c.jpg 0.0': 0.0 is no label"),
        (NUMBERS.format("1e1"), FLAT, "line 3 'c.jpg 1e1': 1e1 is no label"),
        (NUMBERS.format("cat"), FLAT, "line 3 'c.jpg cat': the class is no number, unlike in line 1"),
        (
            WNIDS.replace("n3", "3"),
            FLAT,
            "line 1 'a.jpg 3': the class is a number, unlike in line 2 'b.jpg n1'",
        ),
        (NUMBERS.format(1000000), FLAT, "line 3 .*: a label has at most 6 digits"),
        ("a.jpg x\nb.jpg y\nc.jpg\n", FLAT, "line 3 'c.jpg' has no class"),
        ("a.jpg x\ncat\n", FLAT, "line 2 'cat' has no class"),
        (
            "a.jpg x\nb.jpg y\nz.jpg x",
            FLAT,
            r"says nothing of c.jpg; .* \(1 of its lines .*: line 3 'z.jpg x'\)",
        ),
        (
            "a.JPG x\nb x\n",
            FLAT,
            "none of its lines begins with .* photo \\(line 1 'a.JPG x'\\).* a.jpg and so on",
        ),
        ("490\n361\n171\n", FLAT, "3 numbers, one a line, .* give 'PHOTO CLASS' lines"),
        ("1.jpg cat\n1.jpg dog\n", ["cat/1.jpg", "dog/1.jpg"], "1.jpg is cat and dog .*; give paths"),
        ("1.jpg cat\n", ["cat/1.jpg", "dog/1.jpg"], "1.jpg is the name of 2 photos; give their paths"),
        ("class\nn01\nn02\n", KEYS, "line 1 'class' is no class folder and looks like a header"),
        ("wnid,name\nn01\nn02\n", KEYS, "line 1 'wnid,name' is no class folder and looks like a header"),
        ("n02 3\nn01 7\n", KEYS, "line 1 'n02 3': a number follows the class"),
        ("n02119789 1 kit_fox\nn01 2 tench\nn02 3 x", KEYS, "line 1 'n02119789 1 kit_fox': a number follows"),
        ("n01\n", KEYS, "has no class n02, which photos have; add it"),
        ("n01\nN02\n", KEYS, r"has no class n02.* \(1 of its lines name no folder: line 2 'N02'\)"),
        ("n01\nn02\nn01\n", KEYS, r"line 3 'n01': a class comes twice \(line 1 'n01'\)"),
        (
            "cat\ncat nap\ncat old\n",
            ["cat/1.jpg", "cat nap/1.jpg"],
            "line 2 'cat nap' is a class folder, of line 3",
        ),
        (
            "ant\nbee\n",
            KEYS,
            r"none of its lines .* \(line 1 'ant'\); class folders are n01, n02, photos n01/1",
        ),
        ("n01\n", [*KEYS, "0.jpg"], "has no class '', n02"),
        ("\n", KEYS, "is empty"),
    ],
)
def test_lists_that_are_refused(text: str, keys: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"--classes=.*classes.txt: {message}"):
        _read(tmp_path, text, keys)


@pytest.mark.parametrize("data", ["n01\n".encode("utf-16"), b"caf\xe9\n"], ids=["UTF-16", "Latin-1"])
def test_lists_that_are_no_text(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(data)
    with pytest.raises(UserError, match=r"cannot be read \(.*\); give a text file in UTF-8"):
        read_classes(tmp_path / "classes.txt", KEYS)
    with pytest.raises(UserError, match=r"--classes=.*none.txt: cannot be read"):
        read_classes(tmp_path / "none.txt", KEYS)


def test_what_matches_nothing_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("n00\nn01\nn02\nn09\n")
    assert read_classes(path, KEYS).oddities == {"classes that no photo is of": (2, "n00")}
    path.write_text("1.jpg 1\n2.jpg 1\n4.jpg 1\n3.jpg 2\n5.jpg 0\n")
    assert read_classes(path, KEYS).oddities == {
        "classes that no photo is of": (1, "0"),
        "lines of --classes that name no photo": (2, "line 3 '4.jpg 1'"),
    }


def test_paths_go_before_names(tmp_path: Path) -> None:
    assert _read(tmp_path, "cat/1.jpg 2\n1.jpg 0\n", ["cat/1.jpg", "dog/1.jpg"])[0] == [2, 0]
