"""Journal of what was read: DALI names an operator that failed, users need the shard and the key."""

from collections import deque

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.dataset import Dataset
from dali_bgaug.decoding import DecodeOptions
from dali_bgaug.errors import UnusablePhotos, UserError


class Journal:
    """The sources of the samples read last."""

    def __init__(self, data: Dataset, ahead: int = 2, options: DecodeOptions | None = None) -> None:
        """What is read, and how.

        Args:
            data: the set.
            ahead: batches that the pipeline prefetches, so may read after a bad one.
            options: of its photos' decoding.
        """
        self._data, self._options = data, options or DecodeOptions()
        self._batches: deque[list[bytes]] = deque(maxlen=ahead + 3)

    def watch(self, photo: DataNode) -> None:
        """Have a graph note where its photos come from; define it before what may fail."""
        # A quarter of a millisecond for a batch of 64: photos take as many milliseconds as there are.
        source = fn.get_property(photo, key="source_info")
        fn.python_function(source, function=self._note, batch_processing=True, num_outputs=0, preserve=True)

    def _note(self, sources: list[np.ndarray]) -> None:
        self._batches.append([source.tobytes() for source in sources])

    def explain(self) -> UnusablePhotos | None:
        """An error of what is wrong with the data, or the samples read last; None if they are good."""
        try:
            self._data.check()
            for batch in reversed(tuple(self._batches)):  # the reader may still be reading ahead
                if problems := self._data.damaged(batch, self._options):
                    lines = [problem.line for problem in problems]
                    return UnusablePhotos(self._data.explain(lines), dict(problems))
        except (UserError, OSError) as error:
            reasons = error.reasons if isinstance(error, UnusablePhotos) else {}
            return UnusablePhotos(self._data.explain([str(error)]), reasons)
        return None
