"""Photos in folders, as they were downloaded: what evaluation reads where nothing was packed.

FOLDER/CLASS/….jpg    or .png, …; classes are numbered by name, photos come in order of class and path

What is listed is the tools' rule (`photo_tree.py`), with more endings: nothing is packed, so whatever the
decoder knows is read as it is. `list_photos` reads any files of a folder, whatever its layout.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dali_bgaug.decoding import MAX_PIXELS, DecodeOptions, Decoder, Problem
from dali_bgaug.errors import UnusablePhotos, UserError, some
from dali_bgaug.files import require_folder
from dali_bgaug.photo_tree import (
    JPEG_ENDINGS,
    Oddity,
    class_of,
    describe,
    find_files,
    reject_parts,
    told,
    without_photos,
)
from dali_bgaug.samples import Encoded, Memory
from dali_bgaug.sampling import Piece
from dali_bgaug.shards import TileKind

ENDINGS = (*JPEG_ENDINGS, ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass
class PhotoFolder:
    """Photos in a folder: a `Dataset` of one shard, without masks and tiles."""

    folder: Path
    classes: list[str]
    files: list[str]
    """Paths below the folder."""
    labels: list[int]
    """Of the files: indices into `classes`."""
    oddities: dict[str, Oddity]
    """Files that are no photos, and the like (`photo_tree.py`)."""

    tiles: TileKind = "geometry"
    mask_size = donors = 0
    max_pixels, is_looked_into = MAX_PIXELS, False

    @property
    def samples(self) -> int:
        """Number of photos."""
        return len(self.files)

    @property
    def sizes(self) -> list[int]:
        """All photos."""
        return [self.samples]

    def describe(self) -> str:
        """A summary for people: photos, classes, oddities."""
        return describe(self.folder, self.samples, self.classes, self.oddities)

    @property
    def digest(self) -> str:
        """A hash of the photos' names and sizes; of one that is gone, which reading will say, `None`."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file}\0{_size(self.folder / file)}\n".encode())
        return digest.hexdigest()

    def reader(self, components: list[str]) -> "FolderReader":
        """A reader of `jpg` and `cls`, all that there is."""
        if set(components) - {"jpg", "cls"}:
            raise ValueError("photos in folders have no masks and tiles")
        return FolderReader(self)

    def check(self) -> None:
        """The folder is there, and files to be read: where there is none DALI's reader fails at once.

        Raises:
            UnusablePhotos: some are gone, forbidden or empty; a `UserError` without the folder.
        """
        require_folder(self.folder, "data.shards")
        paths = [self.folder / file for file in self.files]
        if gone := [str(path) for path in paths if not (_size(path) and os.access(path, os.R_OK))]:
            why = "No such file, or an empty or forbidden one"
            raise UnusablePhotos(f"{some(gone)}: {why}", {path: f"{path}: {why}" for path in gone})

    def damaged(self, rows: np.ndarray, options: DecodeOptions) -> list[Problem]:
        """Lines of `FILE problem`."""
        decoder, problems = Decoder(upright=options.upright), []
        for path in sorted({str(self.folder / self.files[row]) for row in rows[:, 1]}):
            try:
                found = decoder.problem(Path(path).read_bytes(), self.max_pixels, options.least)
            except OSError as error:
                problems.append(Problem(path, str(error)))
                continue
            if found:
                problems.append(Problem(path, f"{path} {found}"))
        return problems

    def explain(self, problems: list[str]) -> str:
        """Nobody looked into the photos before."""
        lines = "\n  ".join(["these cannot be used:", *problems])
        return f"{lines}\nreplace them, or take them away"


class FolderReader:
    """Photos of a folder: a `SampleReader`."""

    def __init__(self, photos: PhotoFolder) -> None:
        self._photos = photos

    def stage(self, shards: Iterable[int]) -> None:
        """They are here."""

    def ahead(self, piece: Piece) -> None:
        """Nothing is done ahead."""

    def read(self, rows: np.ndarray, memory: Memory) -> Encoded:
        """Read photos: see `SampleReader`."""
        numbers = rows[:, 1].tolist()
        files = [(self._photos.folder / self._photos.files[number]).read_bytes() for number in numbers]
        labels = np.array([self._photos.labels[number] for number in numbers], np.int64)
        return Encoded([np.frombuffer(file, np.uint8) for file in files], labels)

    def release(self, shard: int) -> None:
        """Nothing is held."""

    def interrupt(self) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing is open."""


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def list_photos(folder: Path, files: list[str], labels: list[int]) -> PhotoFolder:
    """Files of a folder in the order given, whatever its layout, with any labels (int32)."""
    return PhotoFolder(folder, [], files, labels, {})


def open_folder(folder: Path, option: str = "data.shards") -> PhotoFolder:
    """List a folder of class folders; photos beside these have no class and are not taken.

    Raises:
        UserError: no such folder, no class folders in it, class folders without photos, parts of a set in
            place of classes, or what cannot be read (`find_files`).
    """
    tree = find_files(folder, option, ENDINGS)
    if not tree.folders:
        raise UserError(
            f"{option}={folder}: neither packed shards (no manifest.json) nor a folder of class folders"
        )
    if empty := without_photos(tree):
        has = "".join(f"\n  {line}" for line in told(tree.oddities))
        raise UserError(
            f"{option}={folder}: no photos ({', '.join(ENDINGS)}) in {some(empty)}; "
            f"every folder in it is a class: fill these or take them away{has}"
        )
    if beside := [key for key in tree.keys if "/" not in key]:
        tree.keys = [key for key in tree.keys if "/" in key]
        tree.note("photos beside the class folders, not taken", beside[0], len(beside))
    reject_parts(tree, option)
    numbers = {name: number for number, name in enumerate(tree.classes)}
    files = sorted(tree.keys, key=lambda key: (class_of(key), key))
    return PhotoFolder(folder, tree.classes, files, [numbers[class_of(key)] for key in files], tree.oddities)
