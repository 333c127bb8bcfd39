"""CIFAR-10 and CIFAR-100 as they are downloaded for Python: pickles, read without running what is in them.

    cifar-10-batches-py/    data_batch_1 … data_batch_5, test_batch, batches.meta
    cifar-100-python/       train, test, meta; of its labels the fine ones, of 100 classes, are taken

A batch is a dict: `data` uint8 [N, 3072], a row the 1024 red values of an image of 32 x 32, from the top,
then the green, then the blue; and a list of N labels. Krizhevsky 2009.
"""

import io
import pickle
import reprlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dali_bgaug.errors import UserError
from dali_bgaug.files import require_folder, sha256

SPLITS = ("train", "test")
_SIDE = 32
_ROW = 3 * _SIDE**2
_LARGEST = 1 << 30  # bytes of a file; the public ones have 155 MB at most
_REMEDY = "unpack the archive (the 'python version') anew"


class _Kind(NamedTuple):
    """One of the two sets."""

    name: str
    meta: str
    names: str
    """The key of the classes' names in `meta`."""
    labels: str
    files: dict[str, tuple[str, ...]]
    photos: dict[str, int]
    """Of the public set."""


_KINDS = (
    _Kind(
        name="cifar10",
        meta="batches.meta",
        names="label_names",
        labels="labels",
        files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        photos={"train": 50_000, "test": 10_000},
    ),
    _Kind(
        name="cifar100",
        meta="meta",
        names="fine_label_names",
        labels="fine_labels",
        files={"train": ("train",), "test": ("test",)},
        photos={"train": 50_000, "test": 10_000},
    ),
)


class Cifar(NamedTuple):
    """A split of a set."""

    name: str
    classes: list[str]
    images: np.ndarray
    """uint8 [N, 32, 32, 3]."""
    labels: np.ndarray
    """int64 [N]."""
    public: int
    """Images of the public set's split."""
    sha256: dict[str, str]
    """Of its files, by name."""


@lru_cache(maxsize=1)
def read_cifar(folder: Path, split: str, option: str = "--cifar") -> Cifar:
    """Read a split, `train` or `test`.

    Raises:
        UserError: neither set's folder; a file that is missing, damaged, or holds something else.
    """
    require_folder(folder, option)
    kind = next((kind for kind in _KINDS if (folder / kind.meta).is_file()), None)
    if kind is None:
        raise UserError(
            f"{option}={folder}: has neither batches.meta (CIFAR-10) nor meta (CIFAR-100); give the folder "
            "cifar-10-batches-py or cifar-100-python, of the 'python version'"
        )
    meta = _read(folder / kind.meta)
    classes = _classes(folder / kind.meta, kind, meta)
    paths = [folder / name for name in kind.files[split]]
    parts = [_batch(path, kind, len(classes), meta.get("num_cases_per_batch")) for path in paths]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    hashes = {path.name: sha256(path) for path in (folder / kind.meta, *paths)}
    return Cifar(kind.name, classes, images, labels, kind.photos[split], hashes)


def _classes(path: Path, kind: _Kind, meta: dict[Any, Any]) -> list[str]:
    names = meta.get(kind.names)
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: {kind.names} is no list of names; {_REMEDY}")
    for name in names:
        if not isinstance(name, str) or not name.strip() or "/" in name or not name.isprintable():
            raise UserError(
                f"{path}: {kind.names} has {reprlib.repr(name)}, which is no name of a class; {_REMEDY}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"{path}: {kind.names} has a name twice; {_REMEDY}")
    return names


def _batch(path: Path, kind: _Kind, classes: int, photos: object) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a file. photos: how many it must have, if that is said."""
    batch = _read(path)
    for key in ("data", kind.labels):
        if key not in batch:
            has = ", ".join(sorted(name for name in batch if isinstance(name, str))) or "nothing"
            raise UserError(
                f"{path}: has no {key} (it has {has}), so it is no file of {kind.name}; {_REMEDY}"
            )
    data, labels = batch["data"], batch[kind.labels]
    pixels = data.to_numpy() if isinstance(data, _Array) else None
    if pixels is None:
        raise UserError(f"{path}: data is no array of bytes, [N, {_ROW}]; {_REMEDY}")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        count = len(labels) if isinstance(labels, list) else "no list of"
        raise UserError(f"{path}: {len(pixels)} images, but {count} {kind.labels}; {_REMEDY}")
    if isinstance(photos, int) and len(pixels) != photos:
        raise UserError(f"{path}: {len(pixels)} images, but {kind.meta} says {photos} a file; {_REMEDY}")
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            raise UserError(
                f"{path}: {kind.labels}[{row}] is {reprlib.repr(label)}, but {kind.meta} has {classes} "
                f"classes, 0 to {classes - 1}; {_REMEDY}"
            )
    images = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return images, np.array(labels, np.int64)


def _read(path: Path) -> dict[Any, Any]:
    """The dict in a pickle."""
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: {path.stat().st_size} bytes, far more than CIFAR's files; {_REMEDY}")
        values = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()  # Python 2 wrote them
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except _Refused as error:
        raise UserError(f"{path}: {error}, which no file of CIFAR does; it was not run: {_REMEDY}") from None
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: truncated, damaged or no pickle ({reason}); {_REMEDY}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}, not a dict; {_REMEDY}")
    return values


class _Refused(pickle.UnpicklingError):
    """A pickle that asks for something else than arrays."""


class _Dtype:
    """Stands for numpy's dtype."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name

    def __setstate__(self, _: object) -> None:
        """Byte order and the like, which bytes have not."""


class _Array:
    """Stands for numpy's array: what is in a file never reaches numpy's own unpickling, which trusts it."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def to_numpy(self) -> np.ndarray | None:
        """uint8 [N, 3072], in rows; None of another array."""
        try:
            _, shape, dtype, fortran, data = self.state
            count, row = shape
            data = data.encode("latin1") if isinstance(data, str) else data
            if (dtype.name, row, bool(fortran)) != ("u1", _ROW, False) or count < 1:
                return None
            return np.frombuffer(data, np.uint8).reshape(count, row)
        except (ValueError, TypeError, AttributeError):
            return None


def _begin_array(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"asks for the encoding {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Plain containers, numbers, text and numpy's arrays: nothing else is looked up, so nothing is run."""

    _known: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "_reconstruct"): _begin_array,
        ("numpy._core.multiarray", "_reconstruct"): _begin_array,  # numpy 2
        ("_codecs", "encode"): _encode,  # bytes, where Python 3 wrote for Python 2
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """A stand-in for one of the few names that are known."""
        if (module, name) not in self._known:
            raise _Refused(f"asks for {module}.{name}")
        return self._known[module, name]
