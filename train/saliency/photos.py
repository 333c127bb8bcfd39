"""Photos and the voters' maps at the training size: decoded once, arrays on the disk, mapped into memory."""

import io
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from dali_bgaug import stores
from dali_bgaug.errors import UserError, some
from dali_bgaug.files import digest, read_json, write_json
from dali_bgaug.orientation import read_orientation, upright
from train.saliency.workers import worker_pool, written

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

    @property
    def averages(self) -> Path:
        """The folder of the maps that are being averaged."""
        return self.folder / "averages"

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
        UserError: no store, a photo that cannot be read, fewer than two photos that can be used.
    """
    places = {voter: _locate(store, f"maps.{voter}") for voter, store in maps.items()}
    every = set.union(*(set(place.rows) for place in places.values()))
    wanted = sorted(every) if photo_list is None else _read_list(photo_list)
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
    problems = _decode(photos, keys, side, folder / "decoded.npy", workers)
    left_out |= problems
    rows = [row for row, key in enumerate(keys) if key not in problems]
    keys = [keys[row] for row in rows]
    if len(keys) < 2:
        raise UserError(
            f"photos={photos}: {len(keys)} of {len(wanted)} photos can be used, at least 2 are needed; "
            f"{some([f'{key}: {reason}' for key, reason in left_out.items()], 1)}"
        )
    result = PhotoSet(folder, keys, left_out, source)
    decoded = np.load(folder / "decoded.npy", mmap_mode="r")
    with written(result.photos, (len(keys), side, side, 3)) as values:
        for number, row in enumerate(rows):
            values[number] = decoded[row]
    (folder / "decoded.npy").unlink()
    for voter, (files, places_) in places.items():
        with (
            stores.StoreReader(files) as store,
            written(result.maps(voter, 0), (len(keys), side, side)) as values,
        ):
            for number, key in enumerate(keys):
                values[number] = _scaled(store.saliency(*places_[key]), side)
    write_json(record, {"keys": keys, "left_out": left_out, "source": source})
    return result


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


def _read_list(path: Path) -> list[str]:
    """The photos of a list, sorted."""
    try:
        return sorted(
            {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
        )
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"photo_list={path}: cannot be read ({error})") from error


def _decode(photos: Path, keys: list[str], side: int, path: Path, workers: int) -> dict[str, str]:
    """Decode photos into an array, uint8 [N, side, side, 3]; returns what is wrong with which."""
    problems: dict[str, str] = {}
    chunks = [keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK)]
    read = partial(_read, photos, side)
    with ExitStack() as stack:
        values = stack.enter_context(written(path, (len(keys), side, side, 3)))
        bar = stack.enter_context(tqdm(total=len(keys), desc="photos", unit="photo", dynamic_ncols=True))
        found = map(read, chunks)
        if workers > 1:
            found = stack.enter_context(worker_pool(workers, "decodes photos")).map(read, chunks)
        for pixels, wrong in found:
            values[bar.n : bar.n + len(pixels)] = pixels
            problems |= wrong
            bar.update(len(pixels))
    return problems


def _read(photos: Path, side: int, keys: list[str]) -> tuple[np.ndarray, dict[str, str]]:
    """Photos uint8 [n, side, side, 3], and what is wrong with which."""
    pixels, problems = np.zeros((len(keys), side, side, 3), np.uint8), {}
    for row, key in enumerate(keys):
        try:
            data = (photos / key).read_bytes()
        except OSError as error:  # the machine's fault: to leave it out would lose data
            raise UserError(
                f"{photos / key}: cannot be read ({error.strerror}); fix that and run again"
            ) from error
        try:
            with Image.open(io.BytesIO(data)) as image:
                turned = upright(image.convert("RGB"), read_orientation(data))
            pixels[row] = np.asarray(turned.resize((side, side), Image.Resampling.BICUBIC))
        except Exception as error:  # PIL raises nearly anything
            problems[key] = f"cannot be decoded ({error})"
    return pixels, problems


def _scaled(saliency: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(saliency).resize((side, side), Image.Resampling.BILINEAR))
