"""Photos in class folders, as they were downloaded: what evaluation reads where nothing was packed.

FOLDER/CLASS/….jpg    or .png, …; classes are numbered by name, photos come in order of class and path

What is listed is the tools' rule (`photo_tree.py`), with more endings: nothing is packed, so whatever the
decoder knows is read as it is.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.decoding import MAX_PIXELS, Decoder
from dali_bgaug.errors import UserError, some
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
from dali_bgaug.reading import READER, ReaderOptions
from dali_bgaug.shards import TileKind

ENDINGS = (*JPEG_ENDINGS, ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass
class PhotoFolder:
    """Photos in class folders: a `Dataset` without masks and tiles, always in order."""

    folder: Path
    classes: list[str]
    files: list[str]
    """Paths below the folder."""
    labels: list[int]
    """Of the files: indices into `classes`."""
    oddities: dict[str, Oddity]
    """Files that are no photos, and the like (`photo_tree.py`)."""

    tiles: TileKind = "geometry"
    mask_size = donors = open_files = 0
    max_pixels, is_looked_into = MAX_PIXELS, False

    @property
    def samples(self) -> int:
        """Number of photos."""
        return len(self.files)

    def describe(self) -> str:
        """A summary for people: photos, classes, oddities."""
        return describe(self.folder, self.samples, self.classes, self.oddities)

    @property
    def digest(self) -> str:
        """A hash of the photos' names and sizes."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file}\0{(self.folder / file).stat().st_size}\n".encode())
        return digest.hexdigest()

    def read(self, components: list[str], options: ReaderOptions) -> dict[str, DataNode]:
        """`jpg`, uint8 [bytes], and `cls`, int32 [1], all that there is: see `Dataset.read`."""
        if options.shuffle_buffer or set(components) - {"jpg", "cls"}:
            raise ValueError("photos in folders are read in order, without masks and tiles")
        jpg, cls = fn.readers.file(
            name=READER,
            files=[str(self.folder / file) for file in self.files],
            labels=self.labels,
            shard_id=options.seeds.rank,
            num_shards=options.world_size,
            pad_last_batch=True,
            random_shuffle=False,
            stick_to_shard=True,
            dont_use_mmap=not options.mmap,
            prefetch_queue_depth=options.depth,
            seed=options.seeds.of_dali("shuffle"),
        )
        return {"jpg": jpg, "cls": cls}

    def check(self) -> None:
        """The folder is there."""
        require_folder(self.folder, "data.shards")

    def damaged(self, sources: list[bytes]) -> list[str]:
        """Lines of `FILE problem`."""
        decoder = Decoder()
        paths = sorted({Path(source.decode()) for source in sources})
        found = ((path, decoder.problem(path.read_bytes(), self.max_pixels)) for path in paths)
        return [f"{path} {problem}" for path, problem in found if problem]

    def explain(self, problems: list[str]) -> str:
        """Nobody looked into the photos before."""
        lines = "\n  ".join(["these cannot be used:", *problems])
        return f"{lines}\nreplace them, or take them away"


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
