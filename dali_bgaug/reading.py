"""Reading: batches of encoded samples -> decoded photos, masks, tiles and labels, by DALI.

    Fetcher         samples as they are kept, read ahead (`fetching.py`)
    with_header     photos' headers read, before the decoder sees them
    decode          JPEG -> pixels, on the CPU or the GPU
    Reader          all of that, some batches ahead

What is made of a batch is not known here.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

from dali_bgaug.decoding import GREY_JPEG, DecodeOptions, too_large, too_small
from dali_bgaug.errors import UnusablePhotos, UserError
from dali_bgaug.fetching import Fetched, Fetcher
from dali_bgaug.orientation import is_contradictory
from dali_bgaug.samples import Encoded
from dali_bgaug.sampling import Draw
from dali_bgaug.tiles import fits
from dali_bgaug.views.render import Decoded, Tiles


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
    return image


def pool_photos() -> None:
    """Have DALI take blocks of a megabyte and more of the CPU's memory from its pool.

    A batch's photos are one block, every time of another size. By default blocks below 32 MB come from
    malloc, whose heaps they leave in pieces: small batches grew. From the pool all are used again. A user's
    own DALI_MALLOC_POOL_THRESHOLD stays. DALI asks for it when it first takes memory.
    """
    os.environ.setdefault("DALI_MALLOC_POOL_THRESHOLD", "1M")


class Batch:
    """A decoded batch. Its memory is DALI's, until this object is gone."""

    def __init__(self, draw: Draw, encoded: Encoded, lends: np.ndarray, outputs: Sequence[Any]) -> None:
        """outputs: of `decoding_pipeline`."""
        self._outputs = outputs
        self.epoch, self.number = draw.epoch, draw.batch
        """The epoch, and the batch in it."""
        self.photos = _decoded(outputs[0])
        """uint8 [H, W, 3] each, on the reader's device."""
        self.masks = None if encoded.masks is None else torch.from_numpy(encoded.masks)
        """Bit-packed masks, uint8 [N, S * S / 8], on the CPU."""
        self.tiles: Tiles | None = encoded.tiles
        """Geometry, int32 [N, 8], or decoded like photos."""
        self.lends = lends
        """Photos whose tile may be used, bool [N], though it may not be needed in this batch."""
        if encoded.tiles is not None:
            _check_tiles(encoded.tiles, self.photos.sizes)
        if len(outputs) > 1:
            self.tiles = _decoded(outputs[1])
        self.labels = torch.from_numpy(encoded.labels)
        """int64 [N], on the CPU."""


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


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """Options of decoding a rank's batches."""

    batch_size: int
    threads: int
    device_id: int | None
    """The GPU that decodes; None: the CPU."""
    prefetch: int
    """Batches being decoded while nobody waits."""
    hw_decoder_load: float
    preallocate: tuple[int, int]
    max_pixels: int
    packed: bool
    """Whether photos were looked into before: see `with_header`."""
    decoding: DecodeOptions


def decoding_pipeline(
    options: ReaderOptions, source: Callable[[], Sequence[list[np.ndarray]]], tiles: bool
) -> Pipeline:
    """A DALI pipeline that decodes photos, and tiles where there are some; nothing is built or read yet.

    source: gives a batch of encoded photos, and of tiles; their memory must stay as it is until the batch's
        outputs are there.
    """

    @pipeline_def(
        batch_size=options.batch_size,
        num_threads=options.threads,
        device_id=options.device_id,
        prefetch_queue_depth=options.prefetch,
    )
    def define() -> tuple[DataNode, ...]:
        photo, *tile = fn.external_source(
            source=source, num_outputs=1 + tiles, batch=True, dtype=types.UINT8, ndim=1, no_copy=True
        )
        photo = with_header(photo, options.max_pixels, options.packed, options.decoding.least)
        hardware = options.hw_decoder_load, options.preallocate
        return decode(photo, *hardware, options.decoding), *(decode(each, *hardware) for each in tile)

    return define()


class Reader:
    """Batches of a fetcher, decoded by a DALI pipeline, some in the making while nobody waits."""

    def __init__(
        self,
        fetcher: Fetcher,
        options: ReaderOptions,
        *,
        tiles: bool,
        needed: Callable[[Draw, np.ndarray], np.ndarray],
    ) -> None:
        """Build the pipeline.

        Args:
            fetcher: of what is decoded; closed with the reader.
            options: how.
            tiles: whether samples have tiles as JPEGs.
            needed: of a batch's tiles, bool [N], those that lend -> those that it needs; others are not
                decoded.
        """
        self._fetcher, self._options, self._needed = fetcher, options, needed
        self._decoding: deque[tuple[Fetched, np.ndarray]] = deque()
        """Batches in DALI's hands, which reads their memory, and whose tiles may be used."""
        self._pipeline = decoding_pipeline(options, self._feed, tiles)
        self._pipeline.build()

    def _feed(self) -> list[list[np.ndarray]]:
        """The next batch, encoded, for DALI."""
        fetched = self._fetcher.take()
        encoded = fetched.encoded
        lends, fed = encoded.lends, [encoded.photos]
        if encoded.tile_photos is not None:
            needed = self._needed(fetched.draw, lends).tolist()
            fed.append([tile if use else _BLANK for tile, use in zip(encoded.tile_photos, needed)])
        self._decoding.append((fetched, lends))
        return fed

    def schedule(self) -> None:
        """Have one more batch made; the first call has as many made as the pipeline prefetches."""
        self._pipeline.schedule_run()

    def take(self) -> Batch:
        """The next batch; waits until it is decoded."""
        outputs = self._pipeline.outputs()
        (draw, encoded, memory), lends = self._decoding.popleft()
        self._fetcher.give_back(memory)
        return Batch(draw, encoded, lends, outputs)

    def explain(self) -> UnusablePhotos | None:
        """See `Fetcher.explain`."""
        return self._fetcher.explain(self._options.decoding)

    def interrupt(self) -> None:
        """Have nobody wait any longer for files that are being copied."""
        self._fetcher.interrupt()

    def close(self) -> None:
        """End the thread that fetches, and free the pipeline, which would wait for the garbage collector."""
        self._fetcher.close()
        del self._pipeline


_BLANK = np.frombuffer(GREY_JPEG, np.uint8)
"""What is decoded in place of a tile that a batch does not need."""
