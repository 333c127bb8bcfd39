"""Batches: the two operators of a pipeline that make views of what it decodes, and its outputs as tensors.

Each takes a whole batch. The first plans it, on the CPU; the second renders it, on the pipeline's device (a
GPU's kernels are launched on the pipeline's stream).
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, ops
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert
from torch.utils.dlpack import from_dlpack, to_dlpack

from dali_bgaug.reading import Seeds
from dali_bgaug.views.plan import THUMBNAIL, Recipe, plan
from dali_bgaug.views.render import Images, Rendered, Renderer
from dali_bgaug.views.table import TILE, Table


class ViewMaker:
    """Plans and renders the views of a pipeline's batches, one batch after the other."""

    def __init__(
        self,
        recipe: Recipe,
        renderer: Renderer,
        seeds: Seeds,
        strength: Callable[[int], float],
        device: torch.device,
    ) -> None:
        """strength: iteration -> factor on the probabilities of backgrounds; device: the pipeline's."""
        self.renderer, self.device = renderer, device
        self.recipe, self._seeds, self._strength = recipe, seeds, strength
        self._tables: deque[Table] = deque()  # planned, to be rendered in the same order
        self._inputs: list[str] = []

    @do_not_convert
    def plan(self, iteration: DataNode, tile: DataNode | None = None) -> DataNode:
        """Have each batch planned, before tiles are decoded: bool, whether this photo's tile is used.

        iteration: the batch's number; tile: encoded, empty for photos that lend none.
        """
        inputs = [iteration] if tile is None else [iteration, tile]
        return fn.python_function(*inputs, function=self._plan, batch_processing=True)[0]

    def _plan(self, iterations: list[np.ndarray], tiles: list[np.ndarray] | None = None) -> list[np.ndarray]:
        iteration, place = int(iterations[0]), np.arange(len(iterations))
        lends = np.array([len(tile) > 0 for tile in tiles]) if tiles else np.zeros(len(place), bool)
        table = plan(
            self.recipe,
            lambda name: self._seeds.generator(name, iteration),
            lends,
            self._strength(iteration),
        )
        self._tables.append(table)
        used = np.isin(place, table.jobs["sample"][table.jobs["source"] == TILE])
        return list((used & lends)[:, None])

    @do_not_convert
    def render(self, planned: DataNode, **images: DataNode) -> dict[str, DataNode]:
        """Have each batch rendered; planned: what `plan` gave; images: photo, and mask and tile if needed."""
        names = [slot.name for slot in self.recipe.slots]
        names += ["replaced", *(["matched"] if self.recipe.negatives else [])]
        names += ["mask", "window"] if self.recipe.sources else []
        inputs = {"planned": planned, **images}
        if self.device.type == "cuda":
            inputs = {name: node.gpu() for name, node in inputs.items()}
        self._inputs = list(inputs)
        nodes = fn.dl_tensor_python_function(
            *inputs.values(),
            function=self._render,
            num_outputs=len(names),
            batch_processing=True,
            synchronize_stream=False,
            device="cpu" if self.device.type == "cpu" else "gpu",
        )
        return dict(zip(names, nodes, strict=True))

    def _render(self, *inputs: list[Any]) -> tuple[Any, ...]:
        table = self._tables.popleft()
        if self.device.type == "cpu":
            tensors = self._make(table, dict(zip(self._inputs, inputs, strict=True)))
        else:
            stream = torch.cuda.ExternalStream(ops.PythonFunction.current_stream().ptr, self.device)
            with torch.cuda.stream(stream):
                tensors = self._make(table, dict(zip(self._inputs, inputs, strict=True)))
        return tuple([to_dlpack(one) for one in tensor] for tensor in tensors)

    def _make(self, table: Table, inputs: dict[str, list[Any]]) -> list[torch.Tensor]:
        """The outputs, in order."""
        images = {name: [from_dlpack(one) for one in inputs.get(name, [])] for name in ("photo", "tile")}
        photos, tiles = (addresses(images[name]) if images[name] else None for name in ("photo", "tile"))
        masks = torch.stack([from_dlpack(mask) for mask in inputs["mask"]]) if "mask" in inputs else None
        made = self.renderer.render(table, photos, tiles, masks)
        tensors = [
            picture.round().byte() if name in images else picture for name, picture in made.pictures.items()
        ]
        tensors += [_pick(made, jobs) for jobs in (table.replaced, table.matched) if jobs.size]
        if self.recipe.sources:
            sides = torch.from_numpy(photos.sizes).to(self.device)[:, None, [0, 1, 0, 1]]
            tensors += [_thumbnails(masks), made.windows[torch.from_numpy(table.replaced)] / sides]
        return tensors


def addresses(images: list[torch.Tensor]) -> Images:
    """Where decoded images lie, uint8 [height, width, 3] each."""
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    return Images(np.array([image.data_ptr() for image in images]), sizes)


def _pick(made: Rendered, jobs: np.ndarray) -> torch.Tensor:
    """Whether these jobs got what was to lie behind them, uint8, without waiting for a GPU."""
    index = torch.from_numpy(jobs)
    return made.put[index.pin_memory().to("cuda", non_blocking=True) if made.put.is_cuda else index].byte()


def _thumbnails(masks: torch.Tensor) -> torch.Tensor:
    """Masks as pictures, white and black: uint8 [N, THUMBNAIL, THUMBNAIL, 3]."""
    side = int((8 * masks.shape[1]) ** 0.5)
    place = ((torch.arange(THUMBNAIL, device=masks.device) + 0.5) * side / THUMBNAIL).long()
    byte = masks.reshape(-1, side, side // 8)[:, place][:, :, place >> 3]
    return (255 * ((byte >> (7 - (place & 7)).byte()) & 1))[..., None].repeat(1, 1, 1, 3)


class Batches:
    """A pipeline whose outputs are batches, some of them in the making while nobody waits."""

    def __init__(self, pipeline: Pipeline, names: list[str], maker: ViewMaker) -> None:
        """Build the pipeline; names: of its outputs."""
        pipeline.build()
        self.pipeline: Pipeline | None = pipeline
        self._names, self._maker, self._begun = names, maker, False

    def take(self) -> dict[str, torch.Tensor]:
        """The next batch, by name, without a copy: views with channels first, [N, ..., 3, H, W].

        On a GPU it may still be in the making, on the stream that is current now.
        """
        if not self._begun:
            self.pipeline.schedule_run()  # the first call has as many made as the pipeline prefetches
            self._begun = True
        device = self._maker.device
        # DALI's memory may be used again once what this stream does with it is done.
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        outputs = self.pipeline.outputs(stream)
        self.pipeline.schedule_run()
        batch = {
            name: torch.from_dlpack(output.as_tensor())
            for name, output in zip(self._names, outputs, strict=True)
        }
        for name, tensor in batch.items():
            if name in ("replaced", "matched"):
                batch[name] = tensor.bool()
            elif tensor.is_floating_point() and tensor.dim() > 3:  # made with channels last
                batch[name] = tensor.movedim(-1, -3)
        return batch | {"label": _labels(batch.pop("cls"))}

    def checkpoint(self) -> bytes:
        """Where the pipeline is, as of the batch last taken."""
        return self.pipeline.checkpoint()

    def close(self) -> None:
        """End all threads and free memory."""
        self.pipeline = None
        self._maker.renderer.close()


def _labels(digits: torch.Tensor) -> torch.Tensor:
    """Decimal text uint8 [N, digits], or numbers int32 [N, 1] -> int64 [N]."""
    if digits.dtype == torch.int32:
        return digits.flatten().long()
    places = 10 ** torch.arange(digits.shape[1] - 1, -1, -1)
    return (digits.long() - ord("0")) @ places
