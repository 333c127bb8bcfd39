"""Which photo goes where: limits, classes, subsets, parts, and a million photos."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug.errors import UserError
from tools._cli import parse_part
from tools.shard_plan import cut, read_classes, read_subset
from tools.subsets import choose

ROOT = Path(__file__).parents[2]


def test_shards_end_at_either_limit() -> None:
    assert cut(np.array([4, 4, 4, 4, 4]), 9, 10).tolist() == [2, 4, 5]
    assert cut(np.array([4, 4, 4, 4, 4]), 100, 3).tolist() == [3, 5]
    assert cut(np.array([50, 1, 1, 50]), 10, 10).tolist() == [1, 3, 4]  # one that is too large has its own
    assert cut(np.array([], np.int64), 10, 10).tolist() == []


def test_classes_from_folders_names_and_lists(tmp_path: Path) -> None:
    keys = ["cat/1.jpg", "cat/2.jpg", "dog/3.jpg"]
    path = tmp_path / "classes.txt"

    def read(text: str) -> tuple[list[int], list[str]]:
        path.write_text(text)
        label, names = read_classes(path, keys)
        return label.tolist(), names

    label, names = read_classes(None, keys)
    assert (label.tolist(), names) == ([0, 0, 1], ["cat", "dog"])
    assert read("dog\nbird\ncat\n") == ([2, 2, 0], ["dog", "bird", "cat"])
    assert read("1.jpg b\n2.jpg a\n\ndog/3.jpg b\n") == ([1, 0, 1], ["a", "b"])
    assert read("1.jpg 7\n2.jpg 0\n3.jpg 2\n") == ([7, 0, 2], list("01234567"))
    for text, message in (
        ("dog\n", "has no class cat"),
        ("dog\ndog\ncat\n", "a class comes twice"),
        ("1.jpg a\n2.jpg b\n", "says nothing of dog/3.jpg"),
        ("1.jpg a\ncat\n", "some lines have one word and some two"),
        ("\n", "is empty"),
    ):
        with pytest.raises(UserError, match=rf"--classes=.*classes.txt: {message}"):
            read(text)
    with pytest.raises(UserError, match=r"--classes=.*none.txt: cannot be read"):
        read_classes(tmp_path / "none.txt", keys)


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
    with pytest.raises(UserError, match=r"1 of its 2 photos are not in the stores: x.jpg"):
        read_subset(path, keys)


def test_simclrs_lists_are_subsets(tmp_path: Path) -> None:
    """A line is a file's name, without its class folder."""
    keys = ["n01440764/n01440764_10026.JPEG", "n01440764/n01440764_10043.JPEG", "n15075141/n15075141_9.JPEG"]
    path = tmp_path / "1percent.txt"
    path.write_text("n15075141_9.JPEG\nn01440764_10043.JPEG\n")
    assert read_subset(path, keys).tolist() == [1, 2]


def test_one_name_of_two_photos_has_no_class(tmp_path: Path) -> None:
    keys = ["cat/1.jpg", "dog/1.jpg"]
    path = tmp_path / "classes.txt"
    for text, message in (
        ("1.jpg cat\n1.jpg dog\n", "1.jpg is cat and dog; give paths"),
        ("1.jpg cat\n", "1.jpg is the name of 2 photos; give their paths"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_classes(path, keys)
    path.write_text("cat/1.jpg 2\n1.jpg 0\n")
    assert read_classes(path, keys)[0].tolist() == [2, 0]
    path.write_text("cat/1.jpg 15075141\n1.jpg 0\n")  # WordNet's numbers are names
    assert read_classes(path, keys)[1] == ["0", "15075141"]


def test_parts_are_read() -> None:
    assert parse_part("2/8") == (2, 8)
    assert list(range(10))[parse_part("2/4").slice] == [1, 5, 9]
    for text in ("0/4", "5/4", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UserError, match=rf"--part={text}: must be i/n"):
            parse_part(text)


PLAN_A_MILLION = """
import json, time
from pathlib import Path
import numpy as np
from dali_bgaug import stores
from tools.masks import *
from tools.photos import reject_equal_names
from tools.shards import *
from tools.shard_plan import make_plan
start = time.perf_counter()
options = {"mask_size": 256}
entries = []
for file in range(2500):
    keys = [f"n{(512 * file + i) // 1300:08d}/n_{512 * file + i:08d}.JPEG" for i in range(512)]
    entries.append(stores.Entries(
        keys=keys, box=np.zeros((512, 4), np.int32), size=np.full((512, 2), 500, np.int32),
        flags=np.zeros(512, np.uint8), bytes=np.full(512, 110_000), left_out=[], options=options, source="",
        listing=""))
tiles = [np.full(512, 25_000)] * 2500
reject_equal_names([key for part in entries for key in part.keys])
plan = make_plan(entries, tiles, target_bytes=200_000_000, per_shard=10_000, seed=0)
rows = [plan.rows(number) for number in range(5)]
print(json.dumps({"photos": len(plan.order), "classes": len(plan.classes), "shards": len(plan.ends),
    "first": len(rows[0]), "seconds": time.perf_counter() - start,
    "mb": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000}))
"""


def test_a_million_photos_are_planned_in_seconds_and_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAN_A_MILLION],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(done.stdout)
    assert (found["photos"], found["classes"], found["shards"]) == (1_280_000, 985, 935)
    assert found["first"] == 1370
    assert found["mb"] < 1000
    assert found["seconds"] < 30
