"""Loaders of shards in an object store: the batches of a disk, whatever the store does."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from dali_bgaug import storage
from dali_bgaug.dataset import open_packed
from dali_bgaug.errors import UserError
from dali_bgaug.shards import open_shards
from pipelines import LoaderConfig, build_loader
from tests.helpers.loaders import loader_config, signature
from tests.helpers.object_store import Bucket, Fault, make_bucket, put
from tests.helpers.processes import launch, run
from tests.helpers.shards import pack
from tests.helpers.sizes import used


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return make_bucket(monkeypatch)


@pytest.fixture(scope="module")
def small(textured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The textured photos in 13 shards."""
    folder = tmp_path_factory.mktemp("small")
    for kind in ("photos", "masks"):
        (folder / kind).symlink_to(textured.parent / kind)
    return pack(folder, per_shard=4)


def _upload(shards: Path, bucket: Bucket) -> str:
    url = f"{bucket.url}/shards"
    for path in shards.iterdir():
        put(f"{url}/{path.name}", path.read_bytes())
    bucket.proxy.seen.clear()
    return url


def _epochs(config: LoaderConfig, count: int = 2) -> list[list[bytes]]:
    with build_loader(config) as loader:
        return [signature(batch) for _ in range(count) for batch in loader]


def _room(shards: Path, count: int) -> float:
    """Gigabytes of so many of the largest shards, with their indices."""
    return count * max(path.stat().st_size for path in shards.glob("*.tar")) * 1.02 / 1e9


@pytest.mark.parametrize("room", [None, 6])
def test_batches_are_those_of_a_disk(small: Path, bucket: Bucket, tmp_path: Path, room: int | None) -> None:
    """With room for all, every object is read once; with less, copies come and go, and never fill it."""
    expected = _epochs(loader_config(small, shuffle_buffer=4))
    cache = tmp_path / "cache"
    limit = {} if room is None else {"cache_gb": _room(small, room)}
    config = loader_config(_upload(small, bucket), shuffle_buffer=4, cache=cache, **limit)
    assert isinstance(config.shards, str)
    found = []
    with build_loader(config) as loader:
        for _ in range(2):
            for batch in loader:
                found.append(signature(batch))
                if room:
                    assert used(cache) <= config.cache_gb * 1e9
    assert found == expected
    tars = [request.path for request in bucket.proxy.seen if ".tar" in request.path]
    assert (len(tars) == 13) == (room is None)
    if room is None:
        again = loader_config(config.shards, shuffle_buffer=4, cache=cache)
        bucket.proxy.seen.clear()
        assert _epochs(again) == expected
        assert not [request for request in bucket.proxy.seen if ".tar" in request.path]


def test_a_run_resumes_to_the_bit_from_a_disk_or_a_store(small: Path, bucket: Bucket, tmp_path: Path) -> None:
    local = loader_config(small, shuffle_buffer=4)
    remote = loader_config(_upload(small, bucket), shuffle_buffer=4, cache=tmp_path)
    expected = _epochs(local, 3)
    with build_loader(remote) as loader:
        batches = iter(loader)
        found = [signature(next(batches)) for _ in range(4)]
        state = loader.state_dict()
    for config in (local, remote):
        with build_loader(config) as loader:
            loader.load_state_dict(state)
            assert found + [signature(batch) for _ in range(3) for batch in loader] == expected


def test_transient_faults_change_no_batch(small: Path, bucket: Bucket, tmp_path: Path) -> None:
    expected = _epochs(loader_config(small), 1)
    url, turns = _upload(small, bucket), iter(range(10**6))
    kinds = [Fault(status=503, code="SlowDown"), Fault(cut=1000), Fault(wait=0.2), None]
    bucket.proxy.faults = lambda request: kinds[next(turns) % 4] if request.method == "GET" else None
    assert _epochs(loader_config(url, cache=tmp_path), 1) == expected


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=400, code="ExpiredToken"), "the credentials have expired; fetch new ones"),
        (Fault(status=503), "InternalError.*, tried 4 times"),
    ],
)
def test_a_store_that_fails_for_good_ends_the_run_with_its_word(
    small: Path, bucket: Bucket, tmp_path: Path, fault: Fault, says: str
) -> None:
    url = _upload(small, bucket)
    with build_loader(loader_config(url, shuffle_buffer=4, cache=tmp_path)) as loader:
        bucket.proxy.faults = lambda _: fault
        with pytest.raises(UserError, match=f"epoch 0, batch 0, rank 0; {url}/shard-.*{says}"):
            next(iter(loader))


def test_a_replaced_object_is_named_and_never_read(small: Path, bucket: Bucket, tmp_path: Path) -> None:
    url = _upload(small, bucket)
    name = "shard-00007.tar"
    data = (small / name).read_bytes()
    with build_loader(loader_config(url, cache=tmp_path)) as loader:
        put(f"{url}/{name}", data[:-1] + b"x")
        with pytest.raises(UserError, match=f"{url}/{name}: changed while it was being read"):
            list(loader)
    with (
        build_loader(loader_config(url, cache=tmp_path)) as loader,
        pytest.raises(UserError, match=f"{url}/{name}: its SHA-256 is not that of what was written"),
    ):
        list(loader)
    put(f"{url}/{name}", data[:-1])
    with pytest.raises(UserError, match=rf"{url}/{name}: {len(data) - 1} bytes, but manifest.json says"):
        build_loader(loader_config(url, cache=tmp_path))


def test_a_damaged_photo_is_named_by_its_url(small: Path, bucket: Bucket, tmp_path: Path) -> None:
    """One that was damaged before its checksum was taken."""
    manifest = open_shards(small)
    url, shard = _upload(small, bucket), manifest.shards[3]
    offset = int((small / shard.index).read_text().splitlines()[1].split(" ")[1])
    data = bytearray((small / shard.name).read_bytes())
    data[offset : offset + 500] = bytes(500)
    put(f"{url}/{shard.name}", bytes(data))
    shards = [*manifest.shards]
    shards[3] = shard.replaced(sha256=hashlib.sha256(data).hexdigest())
    changed = manifest.replaced(shards=shards, digest="").signed()
    put(f"{url}/manifest.json", changed.model_dump_json().encode())
    with (
        build_loader(loader_config(url, cache=tmp_path)) as loader,
        pytest.raises(UserError, match=f"{url}/{shard.name}: class.*: jpg cannot be decoded"),
    ):
        list(loader)


def test_a_cache_that_could_not_hold_what_is_read_is_refused(
    small: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = loader_config(_upload(small, bucket), shuffle_buffer=4, cache=tmp_path, cache_gb=_room(small, 6))
    build_loader(config).close()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"data.cache_gb=.*: 2 rank\(s\) of this machine read 5 shards each"):
        build_loader(config)


def _store() -> dict[str, str]:
    """Variables that lead to the store, which processes forked from a server do not inherit."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def _two_ranks(store: dict[str, str], url: str, cache: Path, expected: list[list[bytes]]) -> None:
    os.environ.update(store)
    rank = int(os.environ["RANK"])
    config = loader_config(url, shuffle_buffer=4, cache=cache)
    with build_loader(config, rank, 2) as loader:
        assert [signature(batch) for batch in loader] == expected[rank]


def test_ranks_share_copies(small: Path, bucket: Bucket, tmp_path: Path) -> None:
    local, url = loader_config(small, shuffle_buffer=4), _upload(small, bucket)
    expected = []
    for rank in range(2):
        with build_loader(local, rank, 2) as loader:
            expected.append([signature(batch) for batch in loader])
    run(_two_ranks, _store(), url, tmp_path, expected, ranks=2)
    tars = [request.path for request in bucket.proxy.seen if ".tar" in request.path]
    assert len(tars) == len(set(tars)) == 13


def _read(store: dict[str, str], url: str, cache: Path) -> None:
    os.environ.update(store)
    _epochs(loader_config(url, shuffle_buffer=4, cache=cache), 10**6)


def test_a_kill_while_copies_are_made_loses_nothing(small: Path, bucket: Bucket, tmp_path: Path) -> None:
    expected, url = _epochs(loader_config(small, shuffle_buffer=4)), _upload(small, bucket)
    cuts = iter(range(10**6))
    for copies in (1, 4, 8):
        bucket.proxy.faults = lambda request: Fault(wait=0.05) if next(cuts) % 2 else None
        (child,) = launch(_read, _store(), url, tmp_path / "cache")
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("cache/*.tar"))) < copies and time.monotonic() < deadline:
            time.sleep(0.01)
        child.kill()
        child.join()
        assert len(list(tmp_path.glob("cache/*.tar"))) >= copies
    bucket.proxy.faults = lambda _: None
    assert _epochs(loader_config(url, shuffle_buffer=4, cache=tmp_path / "cache")) == expected
    assert not [*tmp_path.glob("cache/*.tmp"), *tmp_path.glob("cache/*.coming")]


def test_a_url_needs_packed_shards(bucket: Bucket) -> None:
    with pytest.raises(UserError, match=f"data.shards={bucket.url}/nothing: has no manifest.json; pack"):
        open_packed(storage.location(f"{bucket.url}/nothing"))
    with pytest.raises(ValidationError, match="two slashes"):
        LoaderConfig.model_validate({"shards": "s3:/bucket/prefix"})
