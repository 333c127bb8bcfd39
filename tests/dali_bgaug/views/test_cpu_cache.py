"""What Numba keeps of the kernels is optional: damaged or nowhere to be kept, they are compiled anew."""

import errno
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

numba = pytest.importorskip("numba")

from dali_bgaug.views.cpu import compile_kept  # noqa: E402


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], int]:
    """A function in a file of its own, kept beside it."""
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path / "kept"))
    path = tmp_path / "source.py"
    path.write_text("def double(x):\n    return 2 * x\n")
    spec = importlib.util.spec_from_file_location("source", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.double


def _kept(tmp_path: Path, ending: str) -> Path:
    [path] = (tmp_path / "kept").rglob(f"*.{ending}")
    return path


@pytest.mark.parametrize(
    ("ending", "content"),
    [("nbi", b""), ("nbi", b"\0" * 300), ("nbi", b"no pickle"), ("nbc", b""), ("nbc", None)],
)
def test_what_is_damaged_is_made_anew(
    ending: str, content: bytes | None, double: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signature = numba.types.int64(numba.types.int64)
    compile_kept(double, signature)
    path = _kept(tmp_path, ending)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] if content is None else content)
    assert compile_kept(double, signature)(4) == 8
    again = compile_kept(double, signature)
    assert (again(5), sum(again.stats.cache_hits.values())) == (10, 1)
    assert not caplog.records


def test_what_cannot_be_kept_is_compiled_and_said_once(
    double: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(numba.core.caching.Cache, "save_overload", full)
    with caplog.at_level(logging.WARNING, "dali_bgaug"):
        assert compile_kept(double, numba.types.int64(numba.types.int64))(4) == 8
    [record] = caplog.records
    assert str(tmp_path / "kept") in record.message
    assert "cannot be kept here (OSError: [Errno 28] No space left on device)" in record.message
