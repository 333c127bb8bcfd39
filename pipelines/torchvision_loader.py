"""The yardstick: the batches of every method, made with PIL, torchvision and a torch DataLoader.

An independent implementation of what the DALI pipelines do, from the same shards and the same `LoaderConfig`: to
test them on the same photo, to compare distributions, and to measure speed against. It shares with them the
options and the shards' format, and none of the algorithms. Differences that stay:

    jitter      torchvision's: the four operations in random order, each clipped; hue in HSV
    epochs      one global shuffle, of which every rank takes every world_size-th photo
    donors      every tile is treated by itself; `views_per_donor` is not used

A worker makes whole batches, so that backgrounds and negatives come from the same batch. uint8 [N, H, W, 3] leaves
the worker; normalising happens once a batch, on the target device.
"""

import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import DataLoader, Dataset

from dali_bgaug.errors import UserError
from dali_bgaug.graph.background import BackgroundOptions
from dali_bgaug.graph.masks import DistortionOptions
from dali_bgaug.graph.photometric import PhotometricOptions
from dali_bgaug.graph.views import ViewOptions
from dali_bgaug.shards import EXTENSIONS, open_shards, unpack_mask
from dali_bgaug.windows import CropOptions
from pipelines.config import LoaderConfig

Window = tuple[float, float, float, float]
"""y0, x0, y1, x1 as fractions of the image: one window serves a photo and its square mask."""
WHOLE: Window = (0.0, 0.0, 1.0, 1.0)

_DRAWS = 10
_OPEN_FILES = 256  # per worker; the customary limit is 1024 and a large set has more shards
_HALF = [0] * 128 + [255] * 128
_JITTER = {
    "brightness": (F.adjust_brightness, 1.0),
    "contrast": (F.adjust_contrast, 1.0),
    "saturation": (F.adjust_saturation, 1.0),
    "hue": (F.adjust_hue, 0.0),
}
"""Each operation, and the factor at which it is left out."""


@dataclass(frozen=True)
class Look:
    """The photometric parameters of one view; the defaults change nothing."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    """In turns, -0.5 to 0.5."""
    grayscale: bool = False
    sigma: float | None = None
    """Of the blur, in pixels of the view; None leaves it out."""
    solarize: bool = False
    order: tuple[str, ...] = tuple(_JITTER)


def draw_look(options: PhotometricOptions, rng: np.random.Generator) -> Look:
    """Draw a view's photometric parameters, as ColorJitter, RandomGrayscale and a random blur do."""
    jitter: dict[str, Any] = {}
    if rng.random() < options.jitter_p:
        for name in ("brightness", "contrast", "saturation"):
            spread = getattr(options, name)
            jitter[name] = rng.uniform(max(0.0, 1 - spread), 1 + spread)
        jitter["hue"] = rng.uniform(-options.hue, options.hue)
        jitter["order"] = tuple(rng.permutation(list(_JITTER)).tolist())
    return Look(
        **jitter,
        grayscale=rng.random() < options.grey_p,
        sigma=rng.uniform(*options.blur_sigma) if rng.random() < options.blur_p else None,
        solarize=rng.random() < options.solarize_p,
    )


def apply_look(image: Image.Image, look: Look) -> Image.Image:
    """Jitter, grayscale, blur, solarize (what is at or above 128): RGB -> RGB."""
    for name in look.order:
        adjust, neutral = _JITTER[name]
        if (factor := getattr(look, name)) != neutral:
            image = adjust(image, factor)
    if look.grayscale:
        image = image.convert("L")  # one channel until the end: what follows treats all three alike
    if look.sigma is not None:
        image = image.filter(ImageFilter.GaussianBlur(look.sigma))
    if look.solarize:
        image = ImageOps.solarize(image, 128)
    return image.convert("RGB") if look.grayscale else image


def foreground_inside(mask: np.ndarray, window: Window) -> float:
    """The area of the foreground inside the window in pixels of the mask, bool [S, S]: exact, a pixel cut by the
    window's edge counts by its part inside.
    """
    y0, x0, y1, x1 = (edge * len(mask) for edge in window)

    def overlap(start: float, end: float) -> tuple[slice, np.ndarray]:
        touched = slice(math.floor(start), math.ceil(end))
        pixels = np.arange(touched.start, touched.stop)
        return touched, np.minimum(end, pixels + 1) - np.maximum(start, pixels)

    rows, height = overlap(y0, y1)
    columns, width = overlap(x0, x1)
    # No matrix product: BLAS would start threads in every worker.
    return float(((mask[rows, columns] * width).sum(axis=1) * height).sum())


def draw_window(
    width: int, height: int, crop: CropOptions, mask: np.ndarray | None, rng: np.random.Generator
) -> Window:
    """torchvision's RandomResizedCrop.get_params; a draw needs at least fg_min of the foreground's area too.

    width, height: of the photo in pixels; mask: bool [S, S] of the same frame, None or empty accepts anything.
    """
    needed = 0.0 if mask is None else crop.fg_min * np.count_nonzero(mask)
    low, high = crop.ratio
    for _ in range(_DRAWS):
        area = width * height * rng.uniform(*crop.scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            window = (y / height, x / width, (y + h) / height, (x + w) / width)
            if needed == 0 or foreground_inside(mask, window) >= needed:
                return window
    w = min(width, round(height * high))
    h = min(height, round(width / low))
    y, x = (height - h) // 2, (width - w) // 2
    return y / height, x / width, (y + h) / height, (x + w) / width


def crop_view(image: Image.Image, window: Window, flip: bool, size: int) -> Image.Image:
    """Cut the window out and resize it to size x size, bilinear, antialiased; then mirror it if `flip`.

    A tile's or a mask's window may have fractional edges. The pixels it touches are cut out first: `resize` with
    a `box` alone would let in what lies outside.
    """
    y0, x0, y1, x1 = window
    left, top, right, bottom = (
        whole if abs(edge - (whole := round(edge))) < 1e-3 else edge  # what was a whole pixel before rounding
        for edge in (x0 * image.width, y0 * image.height, x1 * image.width, y1 * image.height)
    )
    x, y = math.floor(left), math.floor(top)
    part = image.crop((x, y, math.ceil(right), math.ceil(bottom)))
    box = (left - x, top - y, right - x, bottom - y)
    view = part.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view


def crop_mask(mask: np.ndarray, window: Window, flip: bool, size: int) -> np.ndarray:
    """A mask, bool [S, S], cropped like a view: bool [size, size], true where the foreground covers half a pixel."""
    view = crop_view(Image.fromarray(mask).convert("L"), window, flip, size)
    return np.asarray(view.point(_HALF, "1"))


def distort_mask(mask: np.ndarray, options: DistortionOptions, rng: np.random.Generator) -> np.ndarray:
    """Draw a distortion of a view's mask, bool [size, size], and apply it."""
    image = Image.fromarray(mask)
    box = image.getbbox()
    if box is None:
        return mask
    if options.box:
        image = Image.new("1", image.size)
        image.paste(1, box)
    if options.rotate or options.shear or options.translate:
        extent = box[2] - box[0], box[3] - box[1]
        image = F.affine(
            image,
            angle=rng.uniform(-options.rotate, options.rotate),
            translate=[rng.uniform(-options.translate, options.translate) * side for side in extent],
            scale=1.0,
            shear=[rng.uniform(-options.shear, options.shear) for _ in range(2)],
        )
    if rng.random() < options.flip_p:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def composite(view: Image.Image, background: Image.Image, mask: np.ndarray) -> Image.Image:
    """The view where the mask, bool [H, W], is true, elsewhere the background."""
    return Image.composite(view, background, Image.fromarray(mask))


def decode(data: bytes) -> Image.Image:
    """An upright RGB image."""
    image = Image.open(io.BytesIO(data))
    ImageOps.exif_transpose(image, in_place=True)
    return image if image.mode == "RGB" else image.convert("RGB")


class Sample:
    """One photo of a batch; its mask and its tile are unpacked when first used."""

    def __init__(self, parts: dict[str, bytes], mask_size: int) -> None:
        self.photo, self.label = parts["jpg"], int(parts["cls"])
        self.lends = len(parts["tile.jpg"]) > 0
        self._mask, self._tile, self._mask_size = parts["mask"], parts["tile.jpg"], mask_size

    @cached_property
    def mask(self) -> np.ndarray:
        """bool [S, S]."""
        return unpack_mask(self._mask, self._mask_size)

    @cached_property
    def tile(self) -> Image.Image:
        """Only of a photo that lends its background."""
        return decode(self._tile)


class Shards:
    """Random access to packed samples, each one read of its byte range; may be forked and pickled."""

    def __init__(self, folder: Path, verify: bool | None) -> None:
        manifest = open_shards(folder, verify, "data.shards")
        self._paths = [folder / shard.name for shard in manifest.shards]
        self._mask_size = manifest.mask_size
        rows = []
        for number, shard in enumerate(manifest.shards):
            for line in (folder / shard.index).read_text(encoding="utf-8").splitlines()[1:]:
                words = line.split(" ")
                rows.append([number, *map(int, words[1::4]), *map(int, words[2::4])])
        self._index = np.array(rows, np.int64)  # shard, the components' offsets, their sizes
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __getitem__(self, number: int) -> Sample:
        shard, *places = self._index[number].tolist()
        offsets, sizes = places[: len(EXTENSIONS)], places[len(EXTENSIONS) :]
        start, end = offsets[0], offsets[-1] + sizes[-1]
        data = os.pread(self._file(shard), end - start, start)
        parts = {
            name: data[offset - start : offset - start + size]
            for name, offset, size in zip(EXTENSIONS, offsets, sizes, strict=True)
        }
        return Sample(parts, self._mask_size)

    def _file(self, shard: int) -> int:
        if shard not in self._files:
            if len(self._files) == _OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = os.open(self._paths[shard], os.O_RDONLY)
        return self._files[shard]

    def close(self) -> None:
        """Close the files of this process."""
        while self._files:
            os.close(self._files.popitem()[1])


class MadeView:
    """One view of one photo while its batch is made."""

    clean: Image.Image
    """Before its background was replaced; with `stage: before` the same as `ready`."""
    ready: Image.Image
    replaced: bool

    def __init__(
        self,
        sample: Sample,
        frame: tuple[int, int],
        crop: CropOptions,
        distortion: DistortionOptions,
        rng: np.random.Generator,
    ) -> None:
        """Draw the window; frame: the photo's width and height."""
        self._sample, self._size, self._distortion, self._rng = sample, crop.size, distortion, rng
        self.window = draw_window(*frame, crop, sample.mask if crop.fg_min > 0 else None, rng)
        self.flip = rng.random() < crop.flip_p

    @cached_property
    def visible(self) -> bool:
        """Whether any foreground is in the window."""
        return foreground_inside(self._sample.mask, self.window) > 0

    @cached_property
    def mask(self) -> np.ndarray:
        """Distorted if so configured: bool [size, size]."""
        mask = crop_mask(self._sample.mask, self.window, self.flip, self._size)
        return distort_mask(mask, self._distortion, self._rng)


class Plan(NamedTuple):
    """A batch to make: its place in the run and its photos."""

    epoch: int
    number: int
    samples: np.ndarray


@dataclass(frozen=True)
class Plans:
    """One rank's batches, without end. Training: an epoch is a shuffle of the set, of which each rank takes
    every world_size-th photo, as many whole batches as every rank can fill. Evaluation: the rank's part of the
    set in order, the last batch filled up with its last photo.
    """

    config: LoaderConfig
    samples: int
    rank: int
    world_size: int

    @property
    def batch_size(self) -> int:
        """Photos a batch of this rank."""
        return self.config.batch_size // self.world_size

    @property
    def part(self) -> tuple[int, int]:
        """Evaluation: this rank's photos, from and to."""
        return tuple(self.samples * rank // self.world_size for rank in (self.rank, self.rank + 1))

    def __len__(self) -> int:
        """Batches an epoch."""
        if self.config.pipeline == "evaluation":
            return math.ceil(math.ceil(self.samples / self.world_size) / self.batch_size)
        return self.samples // self.world_size // self.batch_size

    def __iter__(self) -> Iterator[Plan]:
        for epoch in itertools.count():
            order = self._order(epoch)
            for number in range(len(self)):
                yield Plan(epoch, number, order[number * self.batch_size :][: self.batch_size])

    def _order(self, epoch: int) -> np.ndarray:
        if self.config.pipeline == "evaluation":
            own = np.arange(*self.part)
            return np.pad(own, (0, len(self) * self.batch_size - len(own)), mode="edge")
        rng = np.random.default_rng([self.config.seed, epoch])
        return rng.permutation(self.samples)[self.rank :: self.world_size]


class Batches(Dataset[dict[str, np.ndarray]]):
    """Plan -> batch: images uint8 [N, size, size, 3], label int64 [N], replaced bool [N, views], matched."""

    def __init__(self, shards: Shards, plans: Plans) -> None:
        self._shards, self._plans, self._config = shards, plans, plans.config
        self._views = {
            kind if options.count == 1 else f"{kind}_{number}": options
            for kind, options in self._config.views.items()
            for number in range(options.count)
        }

    def __getitem__(self, plan: Plan) -> dict[str, np.ndarray]:
        samples = [self._shards[number] for number in plan.samples]
        make = self._evaluate if self._config.pipeline == "evaluation" else self._train
        return make(samples, plan) | {"label": np.array([sample.label for sample in samples], np.int64)}

    def _evaluate(self, samples: list[Sample], _: Plan) -> dict[str, np.ndarray]:
        size = self._config.views["image"].crop.size
        photos = (F.resize(decode(sample.photo), self._config.resize) for sample in samples)
        return {"image": np.stack([np.asarray(F.center_crop(photo, size)) for photo in photos])}

    def _train(self, samples: list[Sample], plan: Plan) -> dict[str, np.ndarray]:
        # Not 0 at the end: a seed sequence is padded with zeros, and two numbers are the shuffle's.
        rng = np.random.default_rng([self._config.seed, plan.epoch, plan.number, self._plans.rank + 1])
        warmup = self._config.background.warmup_epochs
        strength = min(1.0, (plan.epoch + plan.number / len(self._plans)) / warmup) if warmup else 1.0
        swaps = self._config.background.kind == "swaps"
        batch = {name: _images(len(samples), view.crop.size) for name, view in self._views.items()}
        replaced = np.zeros((len(samples), len(self._views)), bool)
        made: dict[str, list[MadeView]] = {name: [] for name in self._views}
        for place, sample in enumerate(samples):
            photo = decode(sample.photo)
            for number, (name, options) in enumerate(self._views.items()):
                view = self._make_view(samples, place, photo, options, strength, rng)
                batch[name][place] = view.ready
                replaced[place, number] = view.replaced
                if swaps:
                    made[name].append(view)
        if swaps:
            batch |= self._negatives(made["key"], made[self._config.background.matches], strength, rng)
        return batch | {"replaced": replaced}

    def _make_view(
        self,
        samples: list[Sample],
        place: int,
        photo: Image.Image,
        options: ViewOptions,
        strength: float,
        rng: np.random.Generator,
    ) -> MadeView:
        """A view of the photo at this place of the batch."""
        background = self._config.background
        view = MadeView(samples[place], photo.size, options.crop, background.distortion, rng)
        image, behind = crop_view(photo, view.window, view.flip, options.crop.size), None
        wanted = background.kind != "none" and options.background
        if wanted and rng.random() < background.p_pos * strength and view.visible:
            lenders = [sample for sample in samples if sample.lends and sample is not samples[place]]
            behind = draw_background(view, lenders, options, background, rng)
        if behind is not None and background.stage == "before":
            image = composite(image, behind, view.mask)
        view.clean = view.ready = apply_look(image, draw_look(options.photometric, rng))
        if behind is not None and background.stage == "after":
            view.ready = composite(view.clean, behind, view.mask)
        view.replaced = behind is not None
        return view

    def _negatives(
        self, keys: list[MadeView], views: list[MadeView], strength: float, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """BG_Swaps: for each photo the key views of others, matched ones with the background of its view."""
        options, count = self._config.background, len(keys)
        names = ["negative"] if options.negatives == 1 else [f"negative_{n}" for n in range(options.negatives)]
        batch = {name: _images(*np.asarray(view.ready).shape[:1]) for name in names}
        return batch


class TorchvisionLoader:
    pass
