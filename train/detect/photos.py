"""Photos of a detection set as tensors, in the order of training.

They are decoded by Pillow, in threads: a step takes far longer than its photos, which the loader's pace would
not change.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from PIL import Image

from dali_bgaug.errors import UserError
from train.detect.objects import AnnotatedPhoto

Example = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""A photo, float32 [3, H, W] in [0, 1], and its target, as `network.build_detector` says."""
_AHEAD = 2
"""Batches that are decoded before they are asked for."""


def read_photo(photo: AnnotatedPhoto) -> torch.Tensor:
    """Decode a photo: uint8 [3, H, W], as it is stored, since that is what the boxes are of.

    Raises:
        UserError: it cannot be read, or its size is not what its annotation says.
    """
    try:
        with Image.open(photo.path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{photo.path}: cannot be decoded ({error}); get this photo again") from error
    height, width = pixels.shape[:2]
    if (width, height) != (photo.width, photo.height):
        raise UserError(
            f"{photo.path}: is of {width} x {height} pixels, its annotation says {photo.width} x "
            f"{photo.height}; get photos and annotations of one set"
        )
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def example(photo: AnnotatedPhoto, mirrored: bool) -> Example:
    """A photo to train with."""
    pixels = read_photo(photo)
    objects = photo.objects
    boxes = objects.boxes.copy()
    target = {"labels": torch.from_numpy(objects.labels) + 1}
    if objects.segmentations is not None:
        masks = [one.mask(photo.height, photo.width) for one in objects.segmentations]
        stacked = np.stack(masks)[..., :: -1 if mirrored else 1]
        target["masks"] = torch.from_numpy(stacked.astype(np.uint8))
    if mirrored:
        pixels = pixels.flip(-1)
        boxes[:, [0, 2]] = photo.width - boxes[:, [2, 0]]
    target["boxes"] = torch.from_numpy(boxes)
    return pixels.float() / 255, target


class TrainingBatches:
    """This rank's batches, from a step on, without end: every photo once before any comes again.

    What a step sees depends on seed and step alone, however often training was broken off before.
    """

    def __init__(
        self, photos: Sequence[AnnotatedPhoto], seed: int, batch_size: int, rank: int, ranks: int, flip: bool
    ) -> None:
        """batch_size: of all ranks. Every photo must have objects."""
        self.batch_size = batch_size // ranks
        self._photos, self._seed, self._flip = photos, seed, flip
        self._all, self._rank = batch_size, rank
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, int))

    def rows(self, step: int) -> list[tuple[int, bool]]:
        """The numbers of a step's photos, and which are mirrored."""
        first = step * self._all + self._rank * self.batch_size
        return [self._draw(place) for place in range(first, first + self.batch_size)]

    def _draw(self, place: int) -> tuple[int, bool]:
        turn, at = divmod(place, len(self._photos))
        if self._order[0] != turn:
            self._order = turn, np.random.default_rng((self._seed, turn)).permutation(len(self._photos))
        mirrored = self._flip and np.random.default_rng((self._seed, 1, place)).random() < 0.5
        return int(self._order[1][at]), bool(mirrored)

    def read(self, step: int, steps: int, threads: int) -> Iterator[list[Example]]:
        """Batches of `steps` steps from `step` on."""
        with ThreadPoolExecutor(threads) as pool:
            waiting = (
                [pool.submit(example, self._photos[row], mirrored) for row, mirrored in self.rows(number)]
                for number in range(step, step + steps)
            )
            ready = list(islice(waiting, _AHEAD))
            while ready:
                ready += islice(waiting, 1)
                yield [one.result() for one in ready.pop(0)]
