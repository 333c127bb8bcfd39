"""The stages that the benchmark times: so many batches of one stage, from nothing under way to nothing under
way.

Between its rounds a stage makes no batch, so that none works in another's time. (A reader fills its queue of
encoded samples up again after a round; that costs less than a thousandth of the decoding.)
"""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types
from torch.utils.data import DataLoader

from dali_bgaug.batches import BatchMaker
from dali_bgaug.dataset import open_packed
from dali_bgaug.fetching import Fetched, Fetcher
from dali_bgaug.reading import ReaderOptions
from dali_bgaug.reading import decode as decode_photo
from dali_bgaug.sampling import EpochShard
from pipelines import LoaderConfig
from pipelines.build import build_fetcher, build_maker, check_epoch_shard, loader_recipe, reader_options
from pipelines.torchvision_loader import Plan, TorchvisionLoader
from tools.bench.timing import Key, Rounds, interleave

BATCHES_PER_WORKER = 2
"""In a round of the torchvision reference, at least: its workers make whole batches, and at a round's end
some wait."""


class DaliStage:
    """A DALI pipeline, warm when it is made."""

    def __init__(self, pipeline: Pipeline, prefetch: int) -> None:
        self._pipeline, self._ahead = pipeline, prefetch
        pipeline.schedule_run()  # the first call schedules `prefetch` batches
        pipeline.outputs()
        self.first_at = time.perf_counter()
        """When the first batch was there."""
        for _ in range(prefetch - 1):
            pipeline.outputs()

    def run(self, batches: int) -> int:
        """With `prefetch` batches in the making, as the loader has."""
        for number in range(batches):
            if number >= self._ahead:
                self._pipeline.outputs()
            self._pipeline.schedule_run()
        for _ in range(min(batches, self._ahead)):
            self._pipeline.outputs()
        return batches


class ViewsStage:
    """All of a loader, warm when it is made: the reader, and a thread that makes batches of what it reads."""

    def __init__(self, maker: BatchMaker, prefetch: int) -> None:
        self._maker, self._ahead = maker, prefetch
        self._thread = ThreadPoolExecutor(1, "batches")
        maker.reader.schedule()  # the first call schedules `prefetch` batches
        self._take(1, 0)
        self.first_at = time.perf_counter()
        """When the first batch was there."""
        self._take(prefetch - 1, 0)

    def run(self, batches: int) -> int:
        """With `prefetch` batches in the making, as the loader has, and one being made of what was read."""
        begun = min(batches, self._ahead)
        for _ in range(begun):
            self._maker.reader.schedule()
        self._take(batches, batches - begun)
        return batches

    def _take(self, batches: int, more: int) -> None:
        """Have so many batches made and wait; the reader begins another with each of the first `more`."""
        made = None
        for made in self._thread.map(self._maker.make, (number < more for number in range(batches))):
            made.take()
        if made and made.ready:
            made.ready.synchronize()  # one stream makes all: those before are there, too

    def __enter__(self) -> "ViewsStage":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._maker.close()


class TorchvisionStage(TorchvisionLoader):
    """The torchvision reference, whose workers get a round's plans at its start and then wait for the next
    round's.

    Normalising is part of a round, as for its users. A round is a multiple of the workers' number, or some of
    them would have nothing to do at its end.
    """

    def __init__(self, config: LoaderConfig, workers: int, device: torch.device) -> None:
        super().__init__(config, workers=workers, device=device)
        self.first_at = 0.0
        self._workers, self._round = workers, _Round(self._dataset.plans())
        self._loader = DataLoader(  # the reference's own, but for `sampler` and `persistent_workers`
            self._dataset,
            batch_size=None,
            sampler=self._round,
            num_workers=workers,
            prefetch_factor=config.prefetch,
            persistent_workers=True,
            pin_memory=device.type == "cuda",
        )

    def run(self, batches: int) -> int:
        """Make and normalise at least so many batches."""
        self._round.batches = self._workers * max(BATCHES_PER_WORKER, -(-batches // self._workers))
        for batch in self._loader:
            for tensor in batch.values():
                self._finish(tensor)
            self.first_at = self.first_at or time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self._round.batches


class _Round:
    """A sampler: the next `batches` of an endless stream of plans."""

    batches = 0

    def __init__(self, plans: Iterator[Plan]) -> None:
        self._plans = plans

    def __iter__(self) -> Iterator[Plan]:
        return itertools.islice(self._plans, self.batches)


def our_stage(
    name: str, config: LoaderConfig, device_id: int | None, stack: contextlib.ExitStack
) -> DaliStage | ViewsStage:
    """read, decode, or all of a loader; `stack` closes it."""
    data = open_packed(config.shards, config.verify, "--shards")
    epoch_shard = EpochShard(data.samples, config.batch_size, 0, 1)
    check_epoch_shard(config, data, epoch_shard)
    if name in ("read", "decode"):
        fetcher = build_fetcher(config, data, epoch_shard, ["jpg", "cls"])
        stack.callback(fetcher.close)
        options = reader_options(config, data, epoch_shard, device_id)
        return DaliStage(_partial_pipeline(fetcher, options, name == "decode"), config.prefetch)
    maker = build_maker(config, loader_recipe(config), data, epoch_shard, device_id)
    return stack.enter_context(ViewsStage(maker, config.prefetch))


def time_loaders(
    configs: Mapping[Key, LoaderConfig], device_id: int | None, rounds: int, batches: int, title: str
) -> Rounds:
    """Time whole loaders in turn, once they are warm; of keys that are names of other stages, these."""
    with contextlib.ExitStack() as stack:
        stages = {key: our_stage(str(key), config, device_id, stack) for key, config in configs.items()}
        for stage in stages.values():
            stage.run(2)
        return interleave(stages, rounds, batches, title)


def _partial_pipeline(fetcher: Fetcher, options: ReaderOptions, decode: bool) -> Pipeline:
    """The start of every loader: read, or read and decode."""

    under_way: deque[Fetched] = deque()

    def photos() -> list[list[np.ndarray]]:
        # DALI reads the memory of as many batches as it prefetches, and of the one that it makes.
        if len(under_way) > options.prefetch + 1:
            fetcher.give_back(under_way.popleft().memory)
        under_way.append(fetcher.take())
        return [under_way[-1].encoded.photos]

    @pipeline_def(
        batch_size=options.batch_size,
        num_threads=options.threads,
        device_id=options.device_id,
        prefetch_queue_depth=options.prefetch,
    )
    def define() -> Any:
        encoded = {"num_outputs": 1, "batch": True, "dtype": types.UINT8, "ndim": 1, "no_copy": True}
        photo = fn.external_source(source=photos, **encoded)[0]
        return decode_photo(photo, options.hw_decoder_load, options.preallocate) if decode else photo

    return define()
