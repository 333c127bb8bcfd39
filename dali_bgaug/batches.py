"""Batches: what the reader decoded, planned and rendered, some ahead of who takes them."""

import atexit
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch

from dali_bgaug.reading import Batch, Reader
from dali_bgaug.sampling import Seeds
from dali_bgaug.views.plan import THUMBNAIL, Recipe, plan
from dali_bgaug.views.render import Rendered, Renderer
from dali_bgaug.views.table import Table
from dali_bgaug.workers import Workers, close_all

atexit.register(close_all)  # later than DALI registered the end of its pipelines, so before it


class Made(NamedTuple):
    """A finished batch."""

    tensors: dict[str, torch.Tensor]
    ready: torch.cuda.Event | None
    """On a GPU: when its pixels are there."""

    def take(self) -> dict[str, torch.Tensor]:
        """The tensors, for the stream that is current now."""
        for tensor in self.tensors.values():
            # Made on another stream: its memory is not to be used again before this one is done.
            if self.ready and tensor.is_cuda:
                stream = torch.cuda.current_stream(tensor.device)
                stream.wait_event(self.ready)
                tensor.record_stream(stream)
        return self.tensors


class BatchMaker:
    """Makes the batches of a reader, one after the other."""

    def __init__(
        self,
        reader: Reader,
        recipe: Recipe,
        renderer: Renderer,
        seeds: Seeds,
        strength: Callable[[int, int], float],
        device: torch.device,
    ) -> None:
        """strength: epoch, batch -> factor on the probabilities of backgrounds; device: the renderer's."""
        self.reader = reader
        self._recipe, self._renderer, self._seeds, self._strength = recipe, renderer, seeds, strength
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._last: tuple[Batch, torch.cuda.Event] | None = None

    def make(self, schedule: bool = True) -> Made:
        """Make the next batch; schedule: have the reader begin another."""
        batch = self.reader.take()
        if schedule:
            self.reader.schedule()
        table = plan(
            self._recipe,
            lambda name: self._seeds.generator(name, batch.epoch, batch.number),
            batch.lends,
            self._strength(batch.epoch, batch.number),
        )
        if self._stream is None:
            return Made(self._tensors(table, self._render(table, batch), batch), None)
        with torch.cuda.stream(self._stream):  # which makes its card the current one, too
            tensors = self._tensors(table, self._render(table, batch), batch)
            ready = torch.cuda.Event()
            ready.record()
        if self._last:  # DALI may take its memory back once the kernels have read it, not before
            self._last[1].synchronize()
        self._last = batch, ready
        return Made(tensors, ready)

    def _render(self, table: Table, batch: Batch) -> Rendered:
        masks = batch.masks
        if masks is not None and self._stream:
            masks = masks.pin_memory().to(self._stream.device, non_blocking=True)
        return self._renderer.render(table, batch.photos, batch.tiles, masks)

    def _tensors(self, table: Table, made: Rendered, batch: Batch) -> dict[str, torch.Tensor]:
        """Tensors of a batch by name: views with channels first, [N, ..., 3, H, W]."""
        sources = ("photo", "tile") if self._recipe.sources else ()
        tensors = {
            name: image.round().to(torch.uint8).cpu() if name in sources else image.movedim(-1, -3)
            for name, image in made.images.items()
        }
        tensors["replaced"] = _pick(made.composited, table.replaced)
        if table.matched.size:
            tensors["matched"] = _pick(made.composited, table.matched)
        if self._recipe.sources and batch.masks is not None:
            tensors["mask"] = _mask_thumbnails(batch.masks.numpy())
            sides = torch.from_numpy(batch.photos.sizes)[:, None, [0, 1, 0, 1]]
            tensors["crop_box"] = made.crop_boxes.cpu()[table.replaced] / sides
        return tensors | {"label": batch.labels}

    def close(self) -> None:
        """Give back threads and memory."""
        self._renderer.close()
        self.reader.close()
        self._last = None


def _pick(flags: torch.Tensor, jobs: np.ndarray) -> torch.Tensor:
    """Flags of these jobs, without waiting for a GPU."""
    index = torch.from_numpy(jobs)
    return flags[index.pin_memory().to(flags.device, non_blocking=True) if flags.is_cuda else index]


def _mask_thumbnails(packed: np.ndarray) -> torch.Tensor:
    """Masks as images, white and black: uint8 [N, THUMBNAIL, THUMBNAIL, 3]."""
    side = int((8 * packed.shape[1]) ** 0.5)
    place = (np.arange(THUMBNAIL) + 0.5) * side / THUMBNAIL
    mask = np.unpackbits(packed, axis=1).reshape(-1, side, side)[:, place.astype(int)][
        :, :, place.astype(int)
    ]
    return torch.from_numpy(np.repeat(255 * mask[..., None], 3, axis=3))


class Producer:
    """A thread that has some batches ready before they are asked for."""

    def __init__(self, maker: BatchMaker, ahead: int) -> None:
        """ahead: batches."""
        self._maker, self._ahead = maker, ahead
        self._thread, self._begun = Workers(1, "batches"), False
        self._coming: deque[Future[Made]] = deque()

    def request(self) -> None:
        """Have as many batches made as are to be ready."""
        while len(self._coming) <= self._ahead:
            self._coming.append(self._thread.submit(self._make))

    def _make(self) -> Made:
        if not self._begun:
            self._begun = True
            self._maker.reader.schedule()
        return self._maker.make()

    def wait(self) -> None:
        """Wait until the next batch is there. What went wrong in making it is raised here."""
        self._coming[0].result()

    def take(self) -> Made:
        """The next batch, which is there."""
        return self._coming.popleft().result()

    def close(self) -> None:
        """End the thread and the maker's."""
        self._maker.reader.interrupt()
        self._thread.close()
        self._coming.clear()
        self._maker.close()
