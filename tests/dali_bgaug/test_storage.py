"""Object stores: what is read is what was written, or a clear error, whatever the network does."""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.registry import _registry

from dali_bgaug import storage
from dali_bgaug.errors import UserError
from dali_bgaug.retries import Retries
from tests.helpers.object_store import Fault, Proxy, Request, first, make_bucket, put

DATA = bytes(range(256)) * 40
BLOCK = 4096


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(storage, "BLOCK", BLOCK)
    return make_bucket(monkeypatch).url


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> tuple[str, Proxy]:
    """An object, and the proxy before its store."""
    monkeypatch.setattr(storage, "BLOCK", BLOCK)
    bucket = make_bucket(monkeypatch)
    put(f"{bucket.url}/data/a.bin", DATA)
    return f"{bucket.url}/data/a.bin", bucket.proxy


@pytest.fixture
def anew() -> Iterator[None]:
    """Clients that read the environment again, and are not kept."""
    storage._filesystem.cache_clear()
    yield
    storage._filesystem.cache_clear()


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- locations


@pytest.mark.parametrize("text", ["s3://bucket/a", "gs://b/c", "memory://x", "s3://bucket/a/"])
def test_urls_stay_text(text: str) -> None:
    assert storage.location(text) == text.rstrip("/")
    assert storage.is_remote(text)


@pytest.mark.parametrize("text", ["out/masks", "/data/a:b", "s3", "a:/b", "x//y", "."])
def test_everything_else_is_a_path(text: str) -> None:
    assert storage.location(text) == Path(text)
    assert not storage.is_remote(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s3:/bucket/a", "two slashes after its scheme: s3://bucket/a"),
        ("s3://", "names no bucket"),
        ("s3:///a", "names no bucket"),
    ],
)
def test_urls_that_are_none(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        storage.location(text)


# --- what they hold


def test_what_is_uploaded_is_read(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)
    storage.upload(tmp_path / "a.bin", f"{bucket}/data/a.bin")
    assert storage.read(f"{bucket}/data/a.bin") == DATA
    assert storage.size(f"{bucket}/data/a.bin") == 10240
    sha256 = hashlib.sha256(DATA).hexdigest()
    storage.download(f"{bucket}/data/a.bin", tmp_path / "new" / "b.bin", size=10240, sha256=sha256)
    assert (tmp_path / "new" / "b.bin").read_bytes() == DATA
    assert _files(tmp_path / "new") == ["b.bin"]


def test_an_empty_object(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/empty", b"")
    assert storage.read(f"{bucket}/empty") == b""
    storage.download(f"{bucket}/empty", tmp_path / "empty", size=0)
    assert (tmp_path / "empty").read_bytes() == b""


def test_names_are_those_directly_below(bucket: str) -> None:
    for name in ("data/b", "data/a", "data/below/c", "database", "d"):
        put(f"{bucket}/{name}", b"x" * len(name))
    assert list(storage.listing(f"{bucket}/data")) == ["a", "b"]
    assert list(storage.listing(bucket)) == ["d", "database"]
    assert list(storage.listing(f"{bucket}/nothing")) == []
    assert list(storage.listing(f"{bucket}/d")) == []
    listed = storage.listing(f"{bucket}/data")
    assert listed["b"] == storage.stat(f"{bucket}/data/b")
    assert listed["b"].size == 6


def test_deleting(bucket: str) -> None:
    put(f"{bucket}/a", DATA)
    storage.delete(f"{bucket}/a")
    storage.delete(f"{bucket}/a")
    assert list(storage.listing(bucket)) == []


def test_a_large_file_goes_up_in_parts(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "RETRIES", Retries())
    with (tmp_path / "large").open("wb") as file:
        file.truncate(101 << 20)  # s3fs puts less than two parts of 50 MiB whole
    storage.upload(tmp_path / "large", f"{bucket}/large")
    assert storage.size(f"{bucket}/large") == 101 << 20
    assert storage.stat(f"{bucket}/large").etag.strip('"').endswith("-3")


def test_what_is_not_there(bucket: str, tmp_path: Path) -> None:
    missing = f"{bucket}/data/none"
    for ask in (storage.read, storage.size, lambda url: storage.download(url, tmp_path / "x")):
        with pytest.raises(UserError, match=f"{missing}: cannot be read .*: no such object or bucket"):
            ask(missing)
    assert _files(tmp_path) == []
    assert storage.find(missing) is None
    with pytest.raises(UserError, match="s3://no-such-bucket/a: cannot be looked for .*: no such bucket"):
        storage.find("s3://no-such-bucket/a")
    with pytest.raises(UserError, match="s3://no-such-bucket/a: cannot be listed .*: no such bucket"):
        list(storage.listing("s3://no-such-bucket/a"))
    (tmp_path / "a").write_bytes(DATA)
    with pytest.raises(UserError, match="s3://no-such-bucket/a: cannot be written .*: no such bucket"):
        storage.upload(tmp_path / "a", "s3://no-such-bucket/a")


def test_more_than_was_expected(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/a", DATA)
    with pytest.raises(UserError, match="10240 bytes, at most 100 were expected"):
        storage.read(f"{bucket}/a", limit=100)
    with pytest.raises(UserError, match="10240 bytes, not the 10241 that were written"):
        storage.download(f"{bucket}/a", tmp_path / "a", size=10241)
    with pytest.raises(UserError, match="its SHA-256 is not that of what was written"):
        storage.download(f"{bucket}/a", tmp_path / "a", sha256="0" * 64)
    assert _files(tmp_path) == []


def test_a_forked_child_has_connections_of_its_own(bucket: str) -> None:
    put(f"{bucket}/a", DATA)
    assert storage.read(f"{bucket}/a") == DATA
    child = os.fork()
    if not child:
        os._exit(0 if storage.read(f"{bucket}/a") == DATA else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert storage.read(f"{bucket}/a") == DATA


def test_other_stores_than_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BLOCK", BLOCK)
    (tmp_path / "a").write_bytes(DATA)
    storage.upload(tmp_path / "a", "memory://storage/a")
    storage.download("memory://storage/a", tmp_path / "b", size=10240)
    assert (tmp_path / "b").read_bytes() == DATA
    assert list(storage.listing("memory://storage")) == ["a"]
    storage.delete("memory://storage/a")
    storage.delete("memory://storage/a")
    assert storage.find("memory://storage/a") is None
    assert list(storage.listing("memory://storage")) == []


def test_a_package_that_is_not_installed(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://: .*pip install 'dali_bgaug\[cloud\]'"):
        storage.read("s3://bucket/a")
    with pytest.raises(UserError, match="nosuch://: no object store of a known kind"):
        storage.read("nosuch://bucket/a")


# --- faults


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Fault(status=503, code="SlowDown"), 3),
        (Fault(status=500), 1),
        (Fault(status=429, code="TooManyRequests"), 1),
        (Fault(cut=1000), 2),
        (Fault(cut=0), 1),
        (Fault(wait=2.5), 1),
    ],
    ids=["slow-down", "internal", "too-many", "cut", "cut-at-once", "no-answer"],
)
def test_a_transient_fault_is_tried_again(
    faulty: tuple[str, Proxy], tmp_path: Path, fault: Fault, times: int
) -> None:
    url, state = faulty
    state.faults = first(times, fault)
    storage.download(url, tmp_path / "a", size=10240)
    assert (tmp_path / "a").read_bytes() == DATA
    ranges = [request.range for request in state.seen if request.method == "GET"]
    assert ranges == ["bytes=0-4095"] * (1 + times) + ["bytes=4096-8191", "bytes=8192-10239"]


def test_after_a_cut_connection_it_goes_on_where_it_was(faulty: tuple[str, Proxy], tmp_path: Path) -> None:
    url, state = faulty
    cuts = iter([None, Fault(cut=100), None, Fault(cut=2000), None])
    state.faults = lambda request: next(cuts) if request.method == "GET" else None
    storage.download(url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    ranges = [request.range for request in state.seen if request.method == "GET"]
    assert ranges == ["bytes=0-4095", *["bytes=4096-8191"] * 2, *["bytes=8192-10239"] * 2]


@pytest.mark.parametrize(
    "fault",
    [Fault(status=503, code="SlowDown"), Fault(cut=0)],
    ids=["slow-down", "cut"],
)
def test_uploads_are_tried_again(faulty: tuple[str, Proxy], tmp_path: Path, fault: Fault) -> None:
    url, state = faulty
    (tmp_path / "new").write_bytes(b"new")
    state.faults = first(1, fault, "PUT")
    storage.upload(tmp_path / "new", url)
    state.faults = lambda request: None
    assert storage.read(url) == b"new"


def test_a_fault_that_stays_ends_in_an_error(faulty: tuple[str, Proxy], tmp_path: Path) -> None:
    url, state = faulty
    state.faults = first(99, Fault(status=503, code="SlowDown"))
    with pytest.raises(UserError, match=rf"{url}: cannot be read \(SlowDown: .*tried 4 times; look at"):
        storage.download(url, tmp_path / "a")
    state.faults = first(99, Fault(status=500), "PUT")
    (tmp_path / "new").write_bytes(b"new")
    with pytest.raises(UserError, match=rf"{url}: cannot be written \(InternalError: .*tried 4 times"):
        storage.upload(tmp_path / "new", url)
    assert _files(tmp_path) == ["new"]
    assert storage.size(url) == 10240


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=400, code="ExpiredToken"), "the credentials have expired"),
        (Fault(status=403, code="InvalidAccessKeyId"), "InvalidAccessKeyId.*give credentials|may do that"),
        (Fault(status=403, code="AccessDenied"), "AccessDenied.*refused; see that these credentials may"),
        (Fault(status=401, code="Unauthorized"), "Unauthorized.*refused"),
        (Fault(status=301, code="PermanentRedirect"), "PermanentRedirect.*the region"),
    ],
)
def test_what_trying_again_does_not_mend(faulty: tuple[str, Proxy], fault: Fault, says: str) -> None:
    url, state = faulty
    state.faults = first(99, fault)
    with pytest.raises(UserError, match=f"{url}: .*({says})"):
        storage.read(url)
    assert [request.method for request in state.seen].count("GET") <= 1 + (fault.status == 301)


def test_no_credentials(anew: None, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError, match=r"/a: cannot be read \(NoCredentialsError.*AWS_ACCESS_KEY_ID"):
        storage.read(f"{bucket}/a")


def test_no_store_at_all(anew: None, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=rf"{bucket}/a: cannot be read .*tried 4 times.*AWS_ENDPOINT_URL"):
        storage.read(f"{bucket}/a")


@pytest.mark.parametrize("new", [DATA[::-1], DATA[:5000]], ids=["same-size", "shorter"])
def test_an_object_that_changes_meanwhile(faulty: tuple[str, Proxy], tmp_path: Path, new: bytes) -> None:
    url, state = faulty

    def replace(request: Request) -> None:
        if request.range == "bytes=4096-8191":
            put(url, new)

    state.faults = replace
    with pytest.raises(UserError, match=f"{url}: changed while it was being read"):
        storage.download(url, tmp_path / "a")
    assert _files(tmp_path) == []


def test_an_object_that_changes_meanwhile_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(DATA)
    storage.upload(tmp_path / "a", "memory://changes/a")
    found = storage.stat("memory://changes/a")
    (tmp_path / "a").write_bytes(DATA[::-1])
    storage.upload(tmp_path / "a", "memory://changes/a")
    with pytest.raises(UserError, match="changed while it was being read"):
        storage.read_range("memory://changes/a", 0, 10, found)


def test_pauses_double_up_to_a_limit() -> None:
    pauses = list(Retries(tries=9, first_pause=0.5, longest_pause=30).pauses())
    longest = [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert len(pauses) == 8
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest))


def test_no_try_begins_after_the_time_is_up(
    faulty: tuple[str, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, state = faulty
    monkeypatch.setattr(storage, "RETRIES", Retries(tries=50, seconds=0.1, first_pause=1))
    state.faults = first(99, Fault(status=503), "HEAD")
    with pytest.raises(UserError, match="tried 1 times"):
        storage.size(url)
