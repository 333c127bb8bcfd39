"""Files on file systems that offer less than a local disk does."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dali_bgaug.errors import UserError
from dali_bgaug.files import DiskFull, atomic, follow, lock, read_json, write_json, write_pointer, write_text
from tests.helpers.processes import holding

NAMES = re.compile(r"step-\d+\.pt")


def _temporary(path: Path, pid: int) -> Path:
    return path.with_name(f"{path.name}.{socket.gethostname()}-{pid}.tmp")


def _refuse(number: int, unless: Callable[[int], bool] = lambda _: False) -> Callable[..., None]:
    """A system call that fails with this error; unless: for arguments it works with."""

    def call(argument: Any, *_: Any) -> None:
        if not unless(argument):
            raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", _refuse(number, lambda file: stat.S_ISREG(os.fstat(file).st_mode)))
    write_text(tmp_path / "a", "text")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "text"}


def test_data_that_does_not_reach_the_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("before")
    for number, kind in ((errno.EIO, OSError), (errno.ENOSPC, DiskFull)):
        monkeypatch.setattr(os, "fsync", _refuse(number))
        with pytest.raises(kind):
            write_text(tmp_path / "a", "text")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "before"}


def test_a_link_of_the_temporary_name_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    _temporary(tmp_path / "a", os.getpid()).symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "elsewhere").read_text() == "precious"
    assert (tmp_path / "a").read_text() == "text"
    assert not (tmp_path / "a").is_symlink()


def test_what_the_dead_left_is_removed(tmp_path: Path) -> None:
    """Of whatever name they were writing; not what the living write, here or on another machine."""
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    gone = [_temporary(tmp_path / name, dead.pid) for name in ("a", "step-00000004.pt", "with\nline")]
    stay = [
        _temporary(tmp_path / "a", os.getppid()),
        tmp_path / f"a.otherhost-{dead.pid}.tmp",
        tmp_path / "notes.tmp",
    ]
    for path in gone + stay:
        path.write_text("half")
    with atomic(tmp_path / "b") as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([*stay, tmp_path / "b"])


@pytest.mark.parametrize("number", [None, errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_pointer_leads_to_its_file_with_links_or_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    if number:
        monkeypatch.setattr(os, "symlink", _refuse(number))
    for name in ("step-1.pt", "step-2.pt"):
        (tmp_path / name).write_text(name)
        write_pointer(tmp_path / "latest.pt", name)
        assert (tmp_path / "latest.pt").is_symlink() == (number is None)
        assert follow(tmp_path / "latest.pt", NAMES).read_text() == name
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"../step-1.pt\n", b"step-1.pt/../../x", b"\xff\xfe", b"PK" * 400])
def test_any_other_file_is_itself(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "latest.pt").write_bytes(content)
    assert follow(tmp_path / "latest.pt", NAMES) == tmp_path / "latest.pt"
    assert follow(tmp_path / "nowhere.pt", NAMES) == tmp_path / "nowhere.pt"


def test_a_lock_says_who_holds_it_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with holding(path) as holder:
        message = rf"in use by {socket.gethostname()}, process {holder.pid}, since 2"
        with pytest.raises(UserError, match=message), lock(path):
            pass
    assert path.exists()
    for _ in range(2):
        with lock(path):
            assert f"process {os.getpid()}, since" in path.read_text()
        assert not path.exists()


def test_a_lock_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    message = r"file/run/lock: cannot be written .*; give a folder"
    with pytest.raises(UserError, match=message), lock(tmp_path / "file" / "run" / "lock"):
        pass
    monkeypatch.setattr(fcntl, "lockf", _refuse(errno.ENOSPC))
    message = "lock: cannot be written .*; what is finished is kept"
    with pytest.raises(DiskFull, match=message), lock(tmp_path / "lock"):
        pass


def test_an_error_inside_a_lock_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of the block") as error, lock(tmp_path / "run" / "lock"):
        raise OSError(errno.ENOSPC, "of the block")
    assert not isinstance(error.value, DiskFull)
    assert not (tmp_path / "run").exists()


def test_without_locks_nobody_is_held_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (errno.ENOLCK, errno.ENOSYS):
        monkeypatch.setattr(fcntl, "lockf", _refuse(number))
        with lock(tmp_path / "lock"), lock(tmp_path / "lock"):
            assert (tmp_path / "lock").exists()


def test_a_result_is_read_as_it_was_written_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    values = {"top1": 0.725, "classes": ["a", "é"], "splits": {"b": 1, "a": None}}
    write_json(path, values)
    assert read_json(path, "run again") == values
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with contextlib.suppress(UserError):
            found = read_json(path, "run again")  # a blank between two words, or the digest's own name
            assert {key: found[key] for key in values} == values
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"result.json: .*run again"):
            read_json(path, "run again")
        if place == len(whole) - 2:
            break
    write_json(path, {"by_batch": {9: 1, 10: 2, 100: 3}, "share": float("nan")})
    assert read_json(path, "run again")["by_batch"] == {"9": 1, "10": 2, "100": 3}
    path.write_text('{"top1": 0.5}')
    assert read_json(path, "run again") == {"top1": 0.5}
    path.write_text("[1]")
    with pytest.raises(UserError, match=r"result.json: holds a list, not an object; run again"):
        read_json(path, "run again")
