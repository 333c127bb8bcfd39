"""Reading: encoded samples -> decoded photos, masks, tiles and labels, a batch at a time, by DALI.

    Dataset.read    the components of a sample, still encoded (`dataset.py`)
    with_header     their headers read, before the decoder sees them
    decode          JPEG -> pixels, on the CPU or the GPU
    Reader          all of that as a pipeline that works ahead

What is made of a batch is not known here.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert
from torch.utils.dlpack import from_dlpack

from dali_bgaug.decoding import DecodeOptions, too_large, too_small
from dali_bgaug.errors import UserError
from dali_bgaug.orientation import is_contradictory
from dali_bgaug.tiles import fits
from dali_bgaug.views.render import Decoded, Tiles

READER = "reader"


@dataclass(frozen=True)
class Seeds:
    """Every random number of a rank: a function of (seed, origin, rank, name, iteration) and nothing else.

    Two ranks never share a stream, a new name does not change another's, and a resumed run needs no
    generator's state.
    """

    seed: int
    rank: int
    origin: int = 0
    """The epoch that iteration 0 belongs to: another one, another stream."""

    def of_dali(self, name: str, rank: int | None = None) -> int:
        """A seed in [1, 2^31) for what DALI itself draws (the reader's shuffling)."""
        words = [self.seed, self.origin, self.rank if rank is None else rank, zlib.crc32(name.encode())]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) % (2**31 - 1) + 1

    def generator(self, name: str, iteration: int) -> np.random.Generator:
        """The random numbers of one name in one batch."""
        return np.random.default_rng(
            [self.seed, self.origin, self.rank, zlib.crc32(name.encode()), iteration]
        )


class ReaderOptions(NamedTuple):
    """Options of a rank's reader (`Dataset.read`)."""

    seeds: Seeds
    world_size: int = 1
    """Ranks that share the samples."""
    shuffle_buffer: int = 4096
    """Samples held (encoded) to draw from; 0: they come in order."""
    mmap: bool = True
    """Whether files are mapped into memory."""
    depth: int = 2
    """Batches kept ahead."""


def with_header(photo: DataNode, max_pixels: int, packed: bool = True, least: int = 1) -> DataNode:
    """The same encoded photos, once all their headers could be read and say so many pixels as may be.

    The decoder of DALI 2.4 ends the process (a segmentation fault) where it meets a header that it cannot
    read, and nobody learns which photo that was; looking for the photo's size fails with an error. Photos
    take their own places anew, by numbers that are not there before.

    Args:
        photo: uint8 [bytes], on the CPU.
        max_pixels: of a photo.
        packed: they were looked into when they were packed; else their EXIF blocks are looked at too, which
            can contradict each other and end the process as well.
        least: pixels of the shortest side.
    """
    shape = fn.peek_image_shape(photo)
    seen = [shape] if packed else [shape, photo]
    place = fn.python_function(*seen, function=partial(_places, max_pixels, least), batch_processing=True)
    return fn.permute_batch(photo, indices=place[0])


def _places(
    max_pixels: int, least: int, shapes: list[np.ndarray], photos: Sequence[np.ndarray] = ()
) -> list[np.ndarray]:
    for number, (height, width, _) in enumerate(np.array(shapes).tolist()):
        if problem := too_large(width, height, max_pixels) or too_small(width, height, least):
            raise UserError(f"photo {number} of the batch {problem}")
    for number, photo in enumerate(photos):
        if is_contradictory(photo.tobytes()):
            raise UserError(f"photo {number} of the batch has EXIF blocks that contradict each other")
    return list(np.arange(len(shapes), dtype=np.int32)[:, None])


def decode(
    encoded: DataNode,
    hw_decoder_load: float = 0.65,
    preallocate: tuple[int, int] = (0, 0),
    options: DecodeOptions | None = None,
) -> DataNode:
    """JPEG bytes -> uint8 [H, W, 3] on the pipeline's device, by default with EXIF orientation applied.

    Args:
        encoded: uint8 [bytes], on the CPU.
        hw_decoder_load: GPU: share of photos for the hardware decoder.
        preallocate: GPU: width and height of photos its memory is made for at start.
        options: `least` must leave a pixel inside the border (`with_header`).
    """
    options = options or DecodeOptions()
    width, height = preallocate
    image = fn.decoders.image(
        encoded,
        # mixed: bytes on the CPU, pixels on the GPU
        device="cpu" if Pipeline.current().device_id is None else "mixed",
        output_type=types.RGB,
        adjust_orientation=options.upright,
        hw_decoder_load=hw_decoder_load,
        preallocate_width_hint=width,
        preallocate_height_hint=height,
    )
    if options.border:
        inside = slice(options.border, -options.border)
        image = image[inside, inside]
    # In an `if` branch that no photo takes, the decoder's empty batch has no dimensions.
    return fn.reshape(image, layout="HWC")


def black_pixel() -> DataNode:
    """Placeholder of an image that is not decoded: uint8 [1, 1, 3] on the pipeline's device."""
    device = "cpu" if Pipeline.current().device_id is None else "gpu"
    return types.Constant(np.zeros((1, 1, 3), np.uint8), device=device, layout="HWC")


def count_iterations(batch_size: int) -> DataNode:
    """The number of the batch since the pipeline's start, int32 in every sample; a checkpoint goes on
    counting."""
    return fn.external_source(
        source=lambda info: np.full(batch_size, info.iteration, np.int32),
        batch=True,
        batch_info=True,
        dtype=types.INT32,
        ndim=0,
    )


@do_not_convert
def choose_tiles(
    iteration: DataNode, tile: DataNode, needed: Callable[[int, np.ndarray], np.ndarray]
) -> tuple[DataNode, DataNode]:
    """Flags of tiles, decoded and usable: bool, and bool [1], in every sample on the CPU.

    needed: (iteration, photos that may lend bool [N]) -> bool [N].
    """

    def choose(iterations: list[np.ndarray], tiles: list[np.ndarray]) -> tuple[list[np.ndarray], ...]:
        lends = np.array([len(tile) > 0 for tile in tiles])
        return list(needed(int(iterations[0]), lends)[:, None]), list(lends[:, None])

    used, lends = fn.python_function(iteration, tile, function=choose, batch_processing=True, num_outputs=2)
    return used[0], lends


def pool_photos() -> None:
    """Have DALI take blocks of a megabyte and more of the CPU's memory from its pool.

    A batch's photos are one block, every time of another size. By default blocks below 32 MB come from
    malloc, whose heaps they leave in pieces: small batches grew. From the pool all are used again. A user's
    own DALI_MALLOC_POOL_THRESHOLD stays. DALI asks for it when it first takes memory.
    """
    os.environ.setdefault("DALI_MALLOC_POOL_THRESHOLD", "1M")


class Batch:
    """A decoded batch. Its memory is DALI's, until this object is gone."""

    def __init__(self, outputs: dict[str, Any], classes: int) -> None:
        """outputs: of the pipeline; classes: how many the set has."""
        self._outputs = outputs
        self.photos = _decoded(outputs["photo"])
        """uint8 [H, W, 3] each, on the pipeline's device; so are"""
        self.masks = from_dlpack(outputs["mask"].as_tensor()) if "mask" in outputs else None
        """bit-packed masks, uint8 [N, S * S / 8]."""
        self.tiles: Tiles | None = None
        """Geometry, or decoded like photos, with a black pixel for one that is not used."""
        self.lends = np.zeros(len(self.photos.sizes), bool)
        """Photos whose tile may be used, bool [N]."""
        if "tile" in outputs:
            self.tiles = geometry = self._numbers("tile").view("<i4")
            self.lends = np.logical_or.reduce(geometry, axis=1)
            _check_tiles(geometry, self.photos.sizes)
        if "tile.jpg" in outputs:
            self.tiles, self.lends = _decoded(outputs["tile.jpg"]), self._numbers("lends")[:, 0]
        self.iteration = int(self._numbers("iteration")[0])
        self.labels = _labels(from_dlpack(outputs["cls"].as_tensor()), classes)
        """int64 [N], on the CPU."""

    def _numbers(self, name: str) -> np.ndarray:
        return np.asarray(self._outputs[name].as_tensor())


def _check_tiles(geometry: np.ndarray, sizes: np.ndarray) -> None:
    """Refuse tiles that reach beyond their photos: kernels read what they say."""
    for number in np.flatnonzero(~fits(geometry, sizes)):
        height, width = sizes[number]
        raise UserError(
            f"the tile of photo {number} of the batch, box and strip {geometry[number].tolist()}, "
            f"lies not in it ({width} x {height} pixels); pack the shards anew"
        )


def _decoded(images: Any) -> Decoded:
    shapes = np.array(images.shape(), np.int32).reshape(len(images), 3)
    return Decoded(np.array([images[number].data_ptr() for number in range(len(images))]), shapes[:, :2])


def _labels(digits: torch.Tensor, classes: int) -> torch.Tensor:
    """Decimal text uint8 [N, digits], or numbers int32 [N, 1] -> int64 [N], each below `classes`."""
    if digits.dtype == torch.int32:
        return digits.flatten().long()
    digits = digits.long() - ord("0")
    labels = digits @ 10 ** torch.arange(digits.shape[1] - 1, -1, -1)
    wrong = ((digits < 0) | (digits > 9)).any(dim=1) | (labels >= classes)
    if wrong.any():
        raise UserError(f"the label of photo {int(wrong.nonzero()[0])} of the batch is none of {classes}")
    return labels


class Reader:
    """A DALI pipeline whose outputs make a `Batch`, with batches in the making while nobody waits."""

    def __init__(self, pipeline: Pipeline, names: list[str], classes: int) -> None:
        """Build the pipeline; names: of its outputs; classes: how many the set has."""
        pipeline.build()
        self._pipeline, self._names, self._classes = pipeline, names, classes

    def schedule(self) -> None:
        """Have one more batch made; the first call has as many made as the pipeline prefetches."""
        self._pipeline.schedule_run()

    def take(self) -> Batch:
        """The next batch; waits until it is decoded."""
        return Batch(dict(zip(self._names, self._pipeline.outputs(), strict=True)), self._classes)

    def checkpoint(self) -> bytes:
        """Checkpoint of the pipeline as of the batch last taken."""
        return self._pipeline.checkpoint()
