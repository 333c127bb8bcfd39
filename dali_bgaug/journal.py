"""Which samples a failed batch was made of: DALI names an operator, users need the shard and the key."""

import tarfile
from collections import deque
from pathlib import Path

import numpy as np
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

from dali_bgaug.errors import UserError
from dali_bgaug.shards import open_shards

REMEMBERED = 8
"""Batches: more than are ever between the reader and a batch given."""


class Journal:
    """The sources of the samples read last."""

    def __init__(self, folder: Path) -> None:
        """folder: of the shards."""
        self._folder = folder
        self._batches: deque[list[bytes]] = deque(maxlen=REMEMBERED)

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
            open_shards(self._folder, verify=False)
        except UserError as error:
            return [str(error)]
        found = []
        for source in dict.fromkeys(source for batch in self._batches for source in batch):
            path, offset, name = source.decode().rsplit(":", 2)
            problem = _problem(Path(path), int(offset))
            if problem:
                found.append(f"{path}: {name.partition('.')[0]}: {problem}")
        return found


def _problem(path: Path, offset: int) -> str | None:
    """What is wrong with the sample whose first member's data begins at `offset`; None if nothing is."""
    try:
        with path.open("rb") as file:
            file.seek(offset - tarfile.BLOCKSIZE)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                key = None
                for member in tar:
                    stem, _, extension = member.name.rpartition("/")[2].partition(".")
                    if key not in (None, stem):
                        break
                    key = stem
                    data = tar.extractfile(member).read()
                    if len(data) < member.size:
                        return f"{extension} is cut short: {len(data)} bytes of {member.size}"
                    if extension.endswith("jpg") and data and not _decodes(data):
                        return f"{extension} is not a JPEG that can be decoded"
    except (OSError, tarfile.TarError) as error:
        return str(error)
    return None


def _decodes(data: bytes) -> bool:
    """Whether DALI decodes these bytes."""

    @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def define() -> DataNode:
        encoded = types.Constant(np.frombuffer(data, np.uint8), device="cpu")
        return fn.decoders.image(encoded, device="cpu", output_type=types.RGB)

    try:
        define().run()
    except RuntimeError:
        return False
    return True
