"""Photos in class folders, as they were downloaded: what evaluation reads where nothing was packed.

FOLDER/CLASS/….jpg    .jpg, .jpeg or .png; classes are numbered by name, photos come in order of their paths

A class folder may be a link; links to folders inside of one are not followed.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.decoding import MAX_PIXELS, Decoder
from dali_bgaug.errors import UserError
from dali_bgaug.files import require_folder
from dali_bgaug.journal import Journal
from dali_bgaug.reading import READER, Seeds

SUFFIXES = (".jpg", ".jpeg", ".png")
MIXED = ("mixed_same", "mixed_rand", "mixed_next")
CHALLENGE = ("original", *MIXED, "only_fg", "only_bg_b", "only_bg_t", "no_fg")
"""The folders of the backgrounds challenge (ImageNet-9; Xiao et al. 2020, Table 1)."""
_SHOWN = 8  # names in an error


class PhotoFolder(NamedTuple):
    """What a manifest is to shards."""

    folder: Path
    classes: list[str]
    files: list[str]
    """Paths below the folder."""
    labels: list[int]
    """Of the files: indices into `classes`."""

    mask_size, donors, max_pixels = 0, 0, MAX_PIXELS  # what shards have besides

    @property
    def samples(self) -> int:
        """How many photos there are."""
        return len(self.files)

    @property
    def digest(self) -> str:
        """A hash of the photos' names and sizes."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file}\0{(self.folder / file).stat().st_size}\n".encode())
        return digest.hexdigest()


def open_folder(folder: Path, option: str = "data.shards") -> PhotoFolder:
    """List a folder of class folders.

    Raises:
        UserError: no such folder, no class folders in it, or class folders without photos.
    """
    require_folder(folder, option)
    places = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not places:
        raise UserError(
            f"{option}={folder}: neither packed shards (no manifest.json) nor a folder of class folders"
        )
    files: list[str] = []
    labels: list[int] = []
    empty = []
    for label, place in enumerate(places):
        found = sorted(
            path.relative_to(folder).as_posix()
            for path in place.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        for name in found:
            if name != name.encode("utf-8", "replace").decode():
                raise UserError(f"{option}={folder}: {os.fsencode(name)!r} is not a name in UTF-8; rename it")
        if not found:
            empty.append(place.name)
        files += found
        labels += [label] * len(found)
    if empty:
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        raise UserError(
            f"{option}={folder}: no photos ({', '.join(SUFFIXES)}) in {', '.join(empty[:_SHOWN])}{more}; "
            "every folder in it is a class: fill these or take them away"
        )
    return PhotoFolder(folder, [place.name for place in places], files, labels)


def read_folder(
    seeds: Seeds, photos: PhotoFolder, world_size: int = 1, *, mmap: bool = True, depth: int = 2
) -> dict[str, DataNode]:
    """`jpg`, uint8 [bytes], and `cls`, int32 [1], on the CPU: every rank its n-th, in order, padded to whole
    batches (`read_shards` without a shuffle buffer)."""
    jpg, cls = fn.readers.file(
        name=READER,
        files=[str(photos.folder / file) for file in photos.files],
        labels=photos.labels,
        shard_id=seeds.rank,
        num_shards=world_size,
        pad_last_batch=True,
        random_shuffle=False,
        stick_to_shard=True,
        dont_use_mmap=not mmap,
        prefetch_queue_depth=depth,
        seed=seeds.of_dali("shuffle"),
    )
    return {"jpg": jpg, "cls": cls}


class FolderJournal(Journal):
    """Which photos a failed batch was made of."""

    damage = "these cannot be used"
    mend = "replace them, or take them away"

    def _check(self) -> None:
        require_folder(self._folder, "data.shards")

    def _damaged(self, sources: list[bytes]) -> list[str]:
        decoder = Decoder()
        paths = sorted({Path(source.decode()) for source in sources})
        found = ((path, decoder.problem(path.read_bytes(), self._max_pixels)) for path in paths)
        return [f"{path} {problem}" for path, problem in found if problem]
