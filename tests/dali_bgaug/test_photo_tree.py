"""What belongs to a set: taken, counted and named, or refused, by the tools and evaluation alike."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dali_bgaug.errors import UserError
from dali_bgaug.folder import open_folder
from dali_bgaug.photo_tree import list_photos

PLAIN = ["ant/1.jpg", "ant/2.JPEG", "bee/deep/3.jpg"]
HIDDEN = "hidden files or folders, not taken"
SYSTEM = "folders of the file system's own, not taken"
TWICE = "folders taken twice, by links"
BACK = "links to a folder they lie in, not followed"
EMPTY = "folders without photos, which are no classes"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three photos of two classes, and nothing else."""
    for name in PLAIN:
        _touch(tmp_path / "set" / name)
    return tmp_path / "set"


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def test_a_plain_set_is_listed_sorted_and_has_no_oddities(root: Path) -> None:
    tree = list_photos(root)
    assert (tree.keys, tree.classes, tree.oddities) == (PLAIN, ["ant", "bee"], {})
    assert tree.describe() == f"{root}: 3 photos of 2 classes, ant … bee"
    _touch(root / "ant b" / "0.jpg")
    assert list_photos(root).keys == ["ant b/0.jpg", *PLAIN]  # of whole paths, as stores have it
    assert open_folder(root).files == ["ant/1.jpg", "ant/2.JPEG", "ant b/0.jpg", "bee/deep/3.jpg"]


@pytest.mark.parametrize(
    ("name", "kind", "tools", "evaluation"),
    [
        ("ant/4.jpe", None, True, True),
        ("ant/4.JFIF", None, True, True),
        ("ant/4.png", ".png files, not taken", False, True),
        ("ant/4.webp", ".webp files, not taken", False, True),
        ("ant/4.BMP", ".bmp files, not taken", False, True),
        ("ant/4.tiff", ".tiff files, not taken", False, True),
        ("ant/4.gif", ".gif files, not taken", False, False),
        ("ant/4.heic", ".heic files, not taken", False, False),
        ("ant/notes", "files without a known ending, not taken", False, False),
        ("ant/4.jpg.00012", "files without a known ending, not taken", False, False),
        ("ant/._4.jpg", HIDDEN, False, False),
        (".DS_Store", HIDDEN, False, False),
        (".git/4.jpg", HIDDEN, False, False),
        ("@eaDir/4.jpg", SYSTEM, False, False),
        ("ant/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", SYSTEM, False, False),
        ("#recycle/4.jpg", SYSTEM, False, False),
        ("lost+found/4.jpg", SYSTEM, False, False),
    ],
)
def test_endings_and_names(root: Path, name: str, kind: str | None, tools: bool, evaluation: bool) -> None:
    _touch(root / name)
    for taken, keys, oddities in (
        (tools, list_photos(root).keys, list_photos(root).oddities),
        (evaluation, open_folder(root).files, open_folder(root).oddities),
    ):
        assert sorted(keys) == sorted([*PLAIN, *([name] * taken)])
        if taken:
            assert oddities == {}
        else:
            [(found, odd)] = oddities.items()
            assert (found, odd.count) == (kind, 1)
            assert name.startswith(odd.example)


@pytest.mark.parametrize(
    ("link", "target", "new", "oddities"),
    [
        ("ant/4.jpg", "../bee/deep/3.jpg", ["ant/4.jpg"], {}),
        ("wasp", "../outside", ["wasp/9.jpg"], {}),
        ("ant/more", "../../outside", ["ant/more/9.jpg"], {}),
        ("ant2", "ant", ["ant2/1.jpg", "ant2/2.JPEG"], {TWICE: (1, "ant2")}),
        ("aaa", "ant", ["aaa/1.jpg", "aaa/2.JPEG"], {TWICE: (1, "ant")}),  # and ant stays
        ("bee/self", ".", [], {BACK: (1, "bee/self")}),
        ("bee/deep/up", "../..", [], {BACK: (1, "bee/deep/up")}),
    ],
)
def test_links_are_followed_by_both(
    root: Path, link: str, target: str, new: list[str], oddities: dict[str, tuple[int, str]]
) -> None:
    _touch(root.parent / "outside" / "9.jpg")
    _link(root / link, target)
    tree, folder = list_photos(root), open_folder(root)
    assert tree.keys == sorted([*PLAIN, *new])
    assert sorted(folder.files) == tree.keys
    assert tree.oddities == folder.oddities == oddities


def test_links_in_a_circle_end(root: Path) -> None:
    _link(root / "ant" / "friend", "../bee")
    _link(root / "bee" / "friend", "../ant")
    assert list_photos(root).keys == [
        *("ant/1.jpg", "ant/2.JPEG", "ant/friend/deep/3.jpg"),
        *("bee/deep/3.jpg", "bee/friend/1.jpg", "bee/friend/2.JPEG"),
    ]


@pytest.mark.parametrize("list_", [list_photos, open_folder], ids=["tools", "evaluation"])
def test_what_cannot_be_seen_is_refused(
    root: Path, list_: Callable[[Path, str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    _link(root / "ant" / "4.jpg", "/not/mounted/4.jpg")
    _link(root / "cat", "/not/mounted/cat")
    _link(root / "ant" / "round.jpg", "round.jpg")
    _touch(root / "bee" / os.fsdecode(b"caf\xe9.jpg"))
    scandir = os.scandir

    def broken(path: str) -> object:
        if path.endswith("/deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(UserError) as found:
        list_(root, "--test")
    assert str(found.value).split("\n  ") == [
        f"--test={root}: 5 of what may be photos cannot be read; fix these, or take them away:",
        f"{root}/ant/4.jpg is a link to /not/mounted/4.jpg: No such file or directory",
        f"{root}/ant/round.jpg is a link to round.jpg: Too many levels of symbolic links",
        f"{root}/bee/deep cannot be listed (Permission denied)",
        f"{root}/cat is a link to /not/mounted/cat: No such file or directory",
        r"b'bee/caf\xe9.jpg' is not a name in UTF-8; rename it",
    ]


def test_photos_beside_the_class_folders_are_said(root: Path) -> None:
    _touch(root / "0.jpg")
    tree, folder = list_photos(root), open_folder(root)
    assert (tree.keys[0], tree.classes) == ("0.jpg", ["", "ant", "bee"])
    assert tree.describe().split("\n  ") == [
        f"{root}: 4 photos of 3 classes, '' … bee",
        "1 photos beside the class folders, which are a class of no name, e.g. 0.jpg",
    ]
    assert (folder.classes, folder.samples) == (["ant", "bee"], 3)
    assert folder.oddities == {"photos beside the class folders, not taken": (1, "0.jpg")}


def test_folders_without_photos_are_said_or_refused(root: Path) -> None:
    _touch(root / "cat" / "1.gif")
    assert list_photos(root).oddities == {EMPTY: (1, "cat"), ".gif files, not taken": (1, "cat/1.gif")}
    with pytest.raises(UserError, match=r"(?s)no photos \(.*\) in cat; .*\n  1 .gif files, not taken, e.g. "):
        open_folder(root)


@pytest.mark.parametrize("list_", [list_photos, open_folder], ids=["tools", "evaluation"])
@pytest.mark.parametrize("parts", [("train",), ("train", "val"), ("Training", "test")])
def test_one_level_too_high_is_refused(
    root: Path, list_: Callable[[Path, str], object], parts: tuple[str, ...]
) -> None:
    for part in parts:
        _touch(root.parent / "whole" / part / "ant" / "1.jpg")
    message = rf"its folders are {', '.join(sorted(parts))}, .*--test=.*/whole/{sorted(parts)[0]} "
    with pytest.raises(UserError, match=message):
        list_(root.parent / "whole", "--test")
    _touch(root.parent / "whole" / "plane" / "1.jpg")  # then train is a vehicle
    list_(root.parent / "whole", "--test")


def test_no_photos_at_all(tmp_path: Path) -> None:
    _touch(tmp_path / "bee" / "1.png")
    with pytest.raises(UserError, match=r"--photos=.*: no photos \(\*.jpg, .*\n  1 .png files, not taken, e"):
        list_photos(tmp_path)
    _touch(tmp_path / "1.jpg")
    (tmp_path / "bee" / "1.png").unlink()
    (tmp_path / "bee").rmdir()
    assert list_photos(tmp_path).describe() == f"{tmp_path}: 1 photos, in no class folders"
