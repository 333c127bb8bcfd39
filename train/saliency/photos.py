"""Photos and the voters' maps at the training size: decoded once, arrays on the disk, mapped into memory."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from dali_bgaug import stores
from dali_bgaug.errors import UserError, some
from dali_bgaug.files import atomic, digest, read_json, write_json
from dali_bgaug.orientation import read_orientation, upright

CHUNK = 32
"""Photos a worker decodes at a time."""


class PhotoSet(NamedTuple):
    """The photos of a training, below a folder.

    photos.npy    uint8 [N, side, side, 3]
    NAME-0.npy    uint8 [N, side, side], the maps of a voter
    photos.json   their names, and which are left out
    """

    folder: Path
    keys: list[str]
    """Paths below the photo folder."""
    left_out: dict[str, str]
    """Photos without a map of every voter, or that cannot be decoded: the reason."""
    source: str
    """Hash of what it was made from: the stores, the size, the photos."""

    @property
    def photos(self) -> Path:
        """The array of photos."""
        return self.folder / "photos.npy"

    def maps(self, voter: str, round_: int) -> Path:
        """The array of a voter's maps after so many rounds; 0: its own."""
        return self.folder / f"{voter}-{round_}.npy"


class _Place(NamedTuple):
    """Rows of a voter's store, by photo."""

    files: list[Path]
    rows: dict[str, tuple[int, int]]


def prepare(
    photos: Path, maps: dict[str, Path], side: int, photo_list: Path | None, folder: Path, workers: int
) -> PhotoSet:
    """Decode the photos that have a map of every voter, and scale photos and maps; done once.

    Args:
        photos: their folder.
        maps: mask stores by voter.
        side: of the squares, in pixels.
        photo_list: a text file of the photos to take; None: all.
        folder: of the arrays.
        workers: processes that decode.

    Raises:
        UserError: no store, photos of the list without maps, fewer than two photos.
    """
    places = {voter: _locate(store, f"maps.{voter}") for voter, store in maps.items()}
    every = set.union(*(set(place.rows) for place in places.values()))
    wanted = sorted(every) if photo_list is None else _read_list(photo_list, every)
    source = digest(side, wanted, {voter: _source(place.files) for voter, place in places.items()})
    record = folder / "photos.json"
    if record.is_file():
        known = read_json(record, "delete the folder and run again")
        if known.get("source") == source:
            return PhotoSet(folder, known["keys"], known["left_out"], source)
        raise UserError(f"{folder}: holds other photos or maps than are given now; choose another --out")
    left_out = {
        key: f"no map by {', '.join(missing)}"
        for key in wanted
        if (missing := [voter for voter, place in places.items() if key not in place.rows])
    }
    keys = [key for key in wanted if key not in left_out]
    if not photos.is_dir():
        raise UserError(f"photos={photos}: no such folder; give the one that the masks were made of")
    decoded = np.empty((len(keys), side, side, 3), np.uint8)
    whole = np.zeros(len(keys), bool)
    for start, chunk, problems in _decode(photos, keys, side, workers):
        decoded[start : start + len(chunk)] = chunk
        whole[start : start + len(chunk)] = [problem is None for problem in problems]
        left_out |= {keys[start + row]: problem for row, problem in enumerate(problems) if problem}
    keys = [key for key, good in zip(keys, whole, strict=True) if good]
    if len(keys) < 2:
        raise UserError(
            f"photos={photos}: {len(keys)} of {len(wanted)} photos can be used; at least 2 are needed"
        )
    result = PhotoSet(folder, keys, left_out, source)
    save(result.photos, decoded[whole])
    for voter, (files, rows) in places.items():
        with stores.StoreReader(files) as store:
            scaled = [_scaled(store.saliency(*rows[key]), side) for key in keys]
        save(result.maps(voter, 0), np.stack(scaled))
    write_json(record, {"keys": keys, "left_out": left_out, "source": source})
    return result


def save(path: Path, values: np.ndarray) -> None:
    """Write an array atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _locate(store: Path, option: str) -> _Place:
    files = stores.list_files(store, option)
    rows = {
        key: (number, row)
        for number, path in enumerate(files)
        for row, key in enumerate(stores.read_keys(path))
    }
    return _Place(files, rows)


def _source(files: list[Path]) -> list[str]:
    return [stores.read_source(path).source for path in files]


def _read_list(path: Path, known: set[str]) -> list[str]:
    """The photos of a list, sorted; each must have a map."""
    try:
        names = {line.strip() for line in path.read_text().splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"photo_list={path}: cannot be read ({error})") from error
    if missing := sorted(names - known):
        raise UserError(
            f"photo_list={path}: {len(missing)} of {len(names)} photos have no map ({some(missing, 3)}); a "
            "line is a path below the photo folder, as in the mask stores"
        )
    return sorted(names)


def _decode(
    photos: Path, keys: list[str], side: int, workers: int
) -> Iterator[tuple[int, np.ndarray, list[str | None]]]:
    starts = range(0, len(keys), CHUNK)
    chunks = [keys[start : start + CHUNK] for start in starts]
    read = partial(_read, photos, side)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(keys), desc="photos", unit="photo", dynamic_ncols=True))
        if workers > 1:  # neither h5py's nor torch's threads survive a fork
            context = multiprocessing.get_context("spawn")
            found = stack.enter_context(ProcessPoolExecutor(workers, context)).map(read, chunks)
        else:
            found = map(read, chunks)
        for start, (chunk, problems) in zip(starts, found, strict=True):
            yield start, chunk, problems
            bar.update(len(chunk))


def _read(photos: Path, side: int, keys: list[str]) -> tuple[np.ndarray, list[str | None]]:
    """Photos uint8 [n, side, side, 3], and what is wrong with each."""
    pixels, problems = np.zeros((len(keys), side, side, 3), np.uint8), []
    for row, key in enumerate(keys):
        try:
            data = (photos / key).read_bytes()
            with Image.open(photos / key) as image:
                turned = upright(image.convert("RGB"), read_orientation(data))
            pixels[row] = np.asarray(turned.resize((side, side), Image.Resampling.BICUBIC))
            problems.append(None)
        except Exception as error:  # PIL raises nearly anything
            problems.append(f"cannot be decoded ({error})")
    return pixels, problems


def _scaled(saliency: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(saliency).resize((side, side), Image.Resampling.BILINEAR))
