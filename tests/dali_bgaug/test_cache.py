"""A cache of bounded size, shared by processes that come, go and are killed."""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dali_bgaug import cache as module
from dali_bgaug.cache import Cache, CacheClosed
from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic
from tests.helpers.processes import launch, run
from tests.helpers.sizes import used

SIZE = 100


class Source:
    """Files of 100 bytes, and how often each was fetched."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def of(self, name: str) -> Callable[[Path], None]:
        def fetch(path: Path) -> None:
            self.fetched.append(name)
            with atomic(path) as temporary:
                temporary.write_bytes(content(name))

        return fetch


def content(name: str) -> bytes:
    return (name * SIZE)[:SIZE].encode()


def hold(cache: Cache, source: Source, name: str) -> None:
    assert cache.hold(name, SIZE, source.of(name)).read_bytes() == content(name)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".room"}


def test_a_file_is_fetched_once_for_all(tmp_path: Path) -> None:
    one, other, source = Cache(tmp_path, 1000), Cache(tmp_path, 1000), Source()
    one.bring("a", SIZE, source.of("a"))
    for _ in range(2):
        hold(one, source, "a")
        hold(other, source, "a")
    one.release("a")
    hold(one, source, "a")
    assert source.fetched == ["a"] and names(tmp_path) == {"a"}


def test_room_is_made_of_files_that_nobody_holds_those_let_go_first(tmp_path: Path) -> None:
    one, other, source = Cache(tmp_path, 3 * SIZE), Cache(tmp_path, 3 * SIZE), Source()
    for name in "abc":
        hold(one, source, name)
    hold(other, source, "a")
    one.release("a")
    one.release("c")
    hold(one, source, "d")
    assert names(tmp_path) == {"a", "b", "d"}
    other.release("a")
    hold(other, source, "c")
    assert names(tmp_path) == {"b", "c", "d"} and source.fetched == [*"abcdc"]


def test_what_is_fetched_ahead_waits_for_a_file_to_be_let_go(tmp_path: Path) -> None:
    cache, source = Cache(tmp_path, 2 * SIZE), Source()
    hold(cache, source, "a")
    cache.bring("b", SIZE, source.of("b"))  # held by nobody yet, but wanted
    thread = threading.Thread(target=cache.bring, args=("c", SIZE, source.of("c")))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and source.fetched == [*"ab"]
    cache.release("a")
    thread.join(10)
    assert source.fetched == [*"abc"] and names(tmp_path) == {"b", "c"}
    hold(cache, source, "d")  # is needed now: one that was fetched ahead makes room
    assert len(names(tmp_path)) == 2 and "d" in names(tmp_path)


def test_files_of_before_make_room_for_what_is_fetched_ahead(tmp_path: Path) -> None:
    source = Source()
    first = Cache(tmp_path, 2 * SIZE)
    for name in "ab":
        first.bring(name, SIZE, source.of(name))
    time.sleep(0.02)
    Cache(tmp_path, 2 * SIZE).bring("c", SIZE, source.of("c"))
    assert names(tmp_path) == {"b", "c"}


def test_closing_ends_waiting(tmp_path: Path) -> None:
    cache, source, raised = Cache(tmp_path, SIZE), Source(), []

    def bring() -> None:
        try:
            cache.bring("b", SIZE, source.of("b"))
        except CacheClosed as error:
            raised.append(error)

    hold(cache, source, "a")
    thread = threading.Thread(target=bring)
    thread.start()
    cache.close()
    thread.join(10)
    assert len(raised) == 1 and source.fetched == ["a"]


def test_a_cache_full_of_files_in_use_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.1)
    one, other, source = Cache(tmp_path, SIZE), Cache(tmp_path, SIZE), Source()
    hold(one, source, "a")
    with pytest.raises(UserError, match=r"files in use fill its 1e-07 GB; give more \(data.cache_gb\)"):
        hold(other, source, "b")
    assert names(tmp_path) == {"a"}


def test_a_file_of_another_size_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"half")
    source = Source()
    hold(Cache(tmp_path, 1000), source, "a")
    assert source.fetched == ["a"]


def _fetch_slowly(folder: Path) -> None:
    def fetch(path: Path) -> None:
        with atomic(path) as temporary:
            temporary.write_bytes(b"x" * 50)
            (folder / "begun").touch()
            time.sleep(60)

    Cache(folder / "cache", 150).hold("a", SIZE, fetch)


def test_a_process_killed_while_it_fetches_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """Its lock is gone with it; the next process removes its mark and what it had written."""
    (child,) = launch(_fetch_slowly, tmp_path)
    for _ in range(600):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.05)
    folder = tmp_path / "cache"
    assert {path.suffix for path in folder.iterdir()} == {"", ".coming", ".tmp"}
    child.kill()
    child.join()
    source = Source()
    hold(Cache(folder, 150), source, "b")
    assert names(folder) == {"b"} and source.fetched == ["b"]


def _hold_at_random(folder: Path) -> None:
    cache, source = Cache(folder, 5 * SIZE), Source()
    chances = random.Random(int(os.environ["RANK"]))
    for _ in range(150):
        name = chances.choice("abcdefghijkl")
        hold(cache, source, name)
        assert used(folder) <= 5 * SIZE
        cache.release(name)


def test_processes_that_share_a_cache_never_fill_it(tmp_path: Path) -> None:
    """Three, with room for five files of twelve, each holding one at a time, in orders of their own."""
    run(_hold_at_random, tmp_path, ranks=3)
    assert names(tmp_path) <= {*"abcdefghijkl"} and len(names(tmp_path)) <= 5


def test_a_file_that_was_fetched_anew_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, removed by another process for room, and fetched again before it could be locked."""
    cache, source, renewed = Cache(tmp_path, 1000), Source(), []
    cache.bring("a", SIZE, source.of("a"))
    flock = module.fcntl.flock

    def late(file: int, operation: int) -> None:
        if operation & module.fcntl.LOCK_SH and not renewed:
            (tmp_path / "a").unlink()
            (tmp_path / "b").write_bytes(content("a"))  # takes the place of the inode
            renewed.append((tmp_path / "b").rename(tmp_path / "a").stat().st_ino)
        flock(file, operation)

    monkeypatch.setattr(module.fcntl, "flock", late)
    hold(cache, source, "a")
    assert source.fetched == ["a"] and (tmp_path / "a").stat().st_ino == renewed[0]


def test_files_are_looked_at_once_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fiftieth of the room is made at a time, of files that were let go."""
    cache, source, looked = Cache(tmp_path, 200 * SIZE), Source(), []
    scan = module.os.scandir
    monkeypatch.setattr(module.os, "scandir", lambda path: looked.append(path) or scan(path))
    for number in range(300):
        hold(cache, source, f"{number}")
        cache.release(f"{number}")
        assert used(tmp_path) <= 200 * SIZE
    assert len(looked) in range(1 + 100 // 5, 1 + 100 // 3)
    assert len(names(tmp_path)) > 190
