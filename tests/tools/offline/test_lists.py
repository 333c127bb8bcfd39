"""Lists of photos to take: made, found elsewhere, and read in whatever way their lines are spelled."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug.errors import UserError
from tools.offline.lists import read_subset
from tools.offline.subsets import choose, main


def test_subsets_are_balanced_nested_and_can_be_packed(tmp_path: Path) -> None:
    keys = [f"{name}/{number:03d}.jpg" for name in "abc" for number in range(200)]
    label = np.repeat([0, 1, 2], 200)
    small, large = (choose(keys, label, percent, 0) for percent in (1, 10))
    assert [sum(key.startswith(name) for key in small) for name in "abc"] == [2, 2, 2]
    assert [sum(key.startswith(name) for key in large) for name in "abc"] == [20, 20, 20]
    assert set(small) < set(large)
    assert small != choose(keys, label, 1, 1)
    assert len(choose(keys, label, 0.001, 0)) == 3
    path = tmp_path / "1percent.txt"
    path.write_text("\n".join(small))
    assert [keys[index] for index in read_subset(path, keys)] == small
    path.write_text("a/000.jpg\n100.jpg")
    with pytest.raises(UserError, match=r"100.jpg may be a/100.jpg or b/100.jpg; give paths"):
        read_subset(path, keys)
    path.write_text("a/000.jpg\nx.jpg")
    with pytest.raises(UserError, match=r"1 of its 2 photos are not in the stores: line 2 'x.jpg'"):
        read_subset(path, keys)


def test_a_path_means_no_photo_of_its_name_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("x.jpg\n")
    assert read_subset(path, ["a.jpg", "sub/x.jpg", "x.jpg"]).tolist() == [2]
    with pytest.raises(UserError, match=r"x.jpg may be one/x.jpg or sub/x.jpg; give paths"):
        read_subset(path, ["one/x.jpg", "sub/x.jpg"])


def test_simclrs_lists_are_subsets(tmp_path: Path) -> None:
    """A line is a file's name, without its class folder."""
    keys = ["n01440764/n01440764_10026.JPEG", "n01440764/n01440764_10043.JPEG", "n15075141/n15075141_9.JPEG"]
    path = tmp_path / "1percent.txt"
    path.write_text("n15075141_9.JPEG\nn01440764_10043.JPEG\n")
    assert read_subset(path, keys).tolist() == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "cat/b c.jpg\n lead/d.jpg\n",
        "cat/b c.jpg\r\n lead/d.jpg\r\n",
        "\ufeffcat/b c.jpg\n\n lead/d.jpg",
        "  cat/b c.jpg \n./ lead/d.jpg\n",
        "b c.jpg\nd.jpg\n",
    ],
    ids=["plain", "Windows", "byte-order mark", "blanks", "names"],
)
def test_lines_are_spelled_in_many_ways(text: str, tmp_path: Path) -> None:
    keys = [" lead/d.jpg", "cat/a.jpg", "cat/b c.jpg"]
    path = tmp_path / "list.txt"
    path.write_bytes(text.encode())
    assert read_subset(path, keys).tolist() == [0, 2]


@pytest.mark.parametrize("of_list", ["caf\u00e9/1.jpg", "cafe\u0301/1.jpg"], ids=["NFC", "NFD"])
@pytest.mark.parametrize("of_file", ["caf\u00e9/1.jpg", "cafe\u0301/1.jpg"], ids=["NFC", "NFD"])
def test_names_are_compared_in_one_normal_form(of_list: str, of_file: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(of_list, encoding="utf-8")
    assert read_subset(path, ["a/1.jpg", of_file]).tolist() == [1]
    both = ["caf\u00e9/1.jpg", "cafe\u0301/1.jpg"]
    assert read_subset(path, both).tolist() == [both.index(of_list)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo\na/1.jpg\n", "1 of its 2 photos are not in the stores: line 1 'photo'; take"),
        ("a/1.jpg 0\n", "line 1 'a/1.jpg 0'"),
        ("\na/1.JPG\na/1\nb/1.jpg", "3 of its 3 .*: line 2 'a/1.JPG', line 3 'a/1', line 4 'b/1.jpg'"),
        (" \n", "is empty"),
    ],
)
def test_lines_that_match_nothing_are_shown(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"--subset=.*list.txt: .*{message}"):
        read_subset(path, ["a/1.jpg"])


def test_photos_that_were_found_to_be_bad_may_be_listed(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a/1.jpg\na/2.jpg\n3.jpg\n")
    assert read_subset(path, ["a/1.jpg"], {"a/2.jpg", "b/3.jpg"}).tolist() == [0]


def test_what_subsets_writes_can_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [" lead/c.jpg", "caf\u00e9/1 2.jpg", "cafe\u0301/1 2.jpg", "tabby cat/a.jpg"]
    for key in keys:
        (tmp_path / "set" / key).parent.mkdir(parents=True)
        (tmp_path / "set" / key).touch()
    words = ["--photos", str(tmp_path / "set"), "--out", str(tmp_path), "--percent", "100"]
    monkeypatch.setattr(sys, "argv", ["subsets", *words])
    main()
    found = read_subset(tmp_path / "100percent.txt", sorted(keys)).tolist()
    assert found == [0, 1, 2, 3]
    (tmp_path / "set" / "tabby cat" / "b\n.jpg").touch()
    with pytest.raises(UserError, match=r"'tabby cat/b\\n.jpg' has a line break in it"):
        main()
