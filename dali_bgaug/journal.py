"""Which samples a failed batch was made of: DALI names an operator, users need the shard and the key."""

import re
from collections import deque
from pathlib import Path

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.decoding import MAX_PIXELS, Decoder
from dali_bgaug.errors import UserError
from dali_bgaug.shard_index import locate_samples
from dali_bgaug.shards import open_shards, unpack_tile
from dali_bgaug.tiles import fits

_SOURCE = re.compile(r"(.*\.tar):(\d+):(.*)", re.DOTALL)


class Journal:
    """The sources of the samples read last."""

    damage = "the shards were damaged after packing"
    """What it means that `damaged` finds something,"""
    mend = "restore them from where they were copied, or pack them again"
    """and what is to be done."""

    def __init__(self, folder: Path, classes: int, ahead: int = 2, max_pixels: int = MAX_PIXELS) -> None:
        """folder: of the shards; classes: how many the set has; ahead: batches that the pipeline prefetches,
        so may read after a bad one; max_pixels: of a photo."""
        self._folder, self._classes, self._max_pixels = folder, classes, max_pixels
        self._batches: deque[list[bytes]] = deque(maxlen=ahead + 3)

    def watch(self, photo: DataNode) -> None:
        """Have a graph note where its photos come from; define it before what may fail."""
        # A quarter of a millisecond for a batch of 64: photos take as many milliseconds as there are.
        source = fn.get_property(photo, key="source_info")
        fn.python_function(source, function=self._note, batch_processing=True, num_outputs=0, preserve=True)

    def _note(self, sources: list[np.ndarray]) -> None:
        self._batches.append([source.tobytes() for source in sources])

    def damaged(self) -> list[str]:
        """What is wrong with the shards, or with the samples read last: lines of `SHARD: KEY: problem`."""
        try:
            self._check()
            for batch in reversed(tuple(self._batches)):  # the reader may still be reading ahead
                if found := self._damaged(batch):
                    return found
        except (UserError, OSError) as error:
            return [str(error)]
        return []

    def _check(self) -> None:
        open_shards(self._folder, verify=False)

    def _damaged(self, sources: list[bytes]) -> list[str]:
        return _damaged(sources, self._classes, self._max_pixels)


def _damaged(sources: list[bytes], classes: int, max_pixels: int) -> list[str]:
    """The samples of a batch whose photo, tile or label cannot be used."""
    places: dict[Path, set[int]] = {}
    for path, offset, _ in (_SOURCE.fullmatch(source.decode()).groups() for source in sources):
        places.setdefault(Path(path), set()).add(int(offset))
    found, decoder = [], Decoder()
    for path, offsets in places.items():
        with path.open("rb") as file:
            for key, members in locate_samples(path.with_suffix(".idx")):
                if members["jpg"][0] not in offsets:
                    continue
                data = {}
                for extension, (offset, size) in members.items():
                    file.seek(offset)
                    data[extension] = file.read(size)
                found += [f"{path}: {key}: {line}" for line in _problems(data, classes, max_pixels, decoder)]
    return found


def _problems(data: dict[str, bytes], classes: int, max_pixels: int, decoder: Decoder) -> list[str]:
    """What is wrong with a sample, its members' bytes by extension."""
    pictures = {name: data[name] for name in ("jpg", "tile.jpg") if data.get(name)}
    problems = {name: decoder.problem(picture, max_pixels) for name, picture in pictures.items()}
    found = [f"{name} {problem}" for name, problem in problems.items() if problem]
    if "tile" in data and "jpg" in pictures and not found:
        geometry = unpack_tile(data["tile"], "geometry")
        size = np.array([decoder.peek(data["jpg"])[::-1]])
        if geometry is not None and not fits(geometry[None], size)[0]:
            found.append("the tile lies not in its photo")
    label = data["cls"]
    if not label.isdigit() or int(label) >= classes:
        found.append(f"cls is {label!r}, no number of one of {classes} classes")
    return found
