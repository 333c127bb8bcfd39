"""Reference implementation: the batches of every method, made with PIL, torchvision and a torch DataLoader.

An independent implementation of what the DALI pipelines do, from the same shards and `LoaderConfig`: to test
against on the same photo, to compare distributions with, and to measure speed against. It shares options and
the format of shards with them, and no algorithm. Where the two differ on purpose:

    jitter   torchvision's: four operations in random order, each one clipped; hue in HSV
    epochs   one shuffle of the whole set, cut into the ranks' parts
    donors   drawn and treated for each view by itself: `views_per_donor` is not used

A worker makes whole batches, since backgrounds and negatives come from the same batch. uint8 [N, H, W, 3]
leaves it; normalising happens once a batch, on the target device.
"""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from dali_bgaug.errors import UserError
from dali_bgaug.shards import TILE_EXTENSION, extensions, kind_of_tile, open_shards, unpack_mask, unpack_tile
from dali_bgaug.tiles import fill
from dali_bgaug.views.options import CropOptions, DistortionOptions, ViewOptions
from pipelines.config import LoaderConfig, require_masks
from pipelines.torchvision_views import (
    Rng,
    apply_photometric,
    composite,
    crop_mask,
    crop_view,
    decode,
    distort_mask,
    draw_crop_box,
    draw_photometric,
    foreground_inside,
)

Plan = tuple[int, int, np.ndarray]
"""A batch to make: epoch, number in the epoch, and its samples' numbers in the set."""

_OPEN_FILES = 256  # per worker; a process may have 1024 as a rule, and a large set has more shards


class Sample:
    """A photo, not decoded; its mask and its tile are unpacked when first used."""

    def __init__(self, parts: dict[str, bytes], mask_size: int) -> None:
        self.photo, self.label = parts["jpg"], int(parts["cls"])
        kind = kind_of_tile(parts)
        self._tile = unpack_tile(parts[TILE_EXTENSION[kind]], kind)
        self.lends = self._tile is not None
        self._parts, self._mask_size = parts, mask_size

    @cached_property
    def mask(self) -> np.ndarray:
        """bool [S, S]."""
        return unpack_mask(self._parts["mask"], self._mask_size)

    @cached_property
    def tile(self) -> Image.Image:
        """The background it lends."""
        if isinstance(self._tile, np.ndarray):
            return Image.fromarray(fill(np.asarray(decode(self.photo)), self._tile))
        return decode(self._tile or b"")


class Shards:
    """The samples of a folder by number, each one read of its byte range; may be forked and pickled."""

    def __init__(self, folder: Path, verify: bool | None) -> None:
        manifest = open_shards(folder, verify, "data.shards")
        self._paths = [folder / shard.name for shard in manifest.shards]
        self.mask_size = manifest.mask_size
        self._components = extensions(manifest.tiles)
        rows = []
        for number, shard in enumerate(manifest.shards):
            for line in (folder / shard.index).read_text(encoding="utf-8").splitlines()[1:]:
                words = line.split(" ")
                rows.append([number, *map(int, words[1::4]), *map(int, words[2::4])])
        self._index = np.array(rows, np.int64)  # [N, 9]: shard, offset of each component, size of each
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> Sample:
        shard, *places = self._index[number].tolist()
        offsets, sizes = places[:4], places[4:]
        start, end = offsets[0], offsets[-1] + sizes[-1]
        data = os.pread(self._file(shard), end - start, start)
        parts = [data[at - start : at - start + size] for at, size in zip(offsets, sizes, strict=True)]
        return Sample(dict(zip(self._components, parts, strict=True)), self.mask_size)

    def _file(self, shard: int) -> int:
        if shard not in self._files:
            if len(self._files) == _OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = os.open(self._paths[shard], os.O_RDONLY)
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def close(self) -> None:
        """Close the files of this process."""
        while self._files:
            os.close(self._files.popitem()[1])


class View:
    """One view of one photo while its batch is made."""

    image: Image.Image
    replaced = False

    def __init__(
        self, sample: Sample, photo: Image.Image, crop: CropOptions, distortion: DistortionOptions, rng: Rng
    ) -> None:
        self._sample, self._size, self._distortion, self._rng = sample, crop.size, distortion, rng
        self.crop_box = draw_crop_box(*photo.size, crop, sample.mask if crop.fg_min else None, rng)
        self.flip = rng.random() < crop.flip_p

    def crop(self, image: Image.Image) -> Image.Image:
        """The crop box of its photo, or of what is stretched to the photo's frame."""
        return crop_view(image, self.crop_box, self.flip, self._size)

    @cached_property
    def visible(self) -> bool:
        """Whether any foreground is in the crop box."""
        return foreground_inside(self._sample.mask, self.crop_box) > 0

    @cached_property
    def mask(self) -> np.ndarray:
        """bool [size, size]; distorted once, for all uses."""
        mask = crop_mask(self._sample.mask, self.crop_box, self.flip, self._size)
        return distort_mask(mask, self._distortion, self._rng)


@dataclass(frozen=True)
class Maker:
    """Makes one training batch."""

    config: LoaderConfig
    samples: list[Sample]
    rng: Rng
    strength: float
    """Factor on the probabilities of backgrounds."""

    def batch(self, kinds: dict[str, ViewOptions]) -> dict[str, np.ndarray]:
        """Images uint8 [N, size, size, 3], `replaced` bool [N, views]; for swaps `matched` too."""
        count, swaps = len(self.samples), self.config.background.kind == "swaps"
        images = {name: _images(count, options.crop.size) for name, options in kinds.items()}
        views: dict[str, list[View]] = {name: [] for name in kinds}
        replaced = np.zeros((count, len(kinds)), bool)
        for place, sample in enumerate(self.samples):
            photo = decode(sample.photo)
            for number, (name, options) in enumerate(kinds.items()):
                view = self._view(sample, photo, options)
                images[name][place], replaced[place, number] = view.image, view.replaced
                if swaps:
                    views[name].append(view)
        if swaps:
            images |= self._negatives(views["key"], views[self.config.background.matches])
        return images | {"replaced": replaced}

    def _view(self, sample: Sample, photo: Image.Image, options: ViewOptions) -> View:
        background = self.config.background
        view = View(sample, photo, options.crop, background.distortion, self.rng)
        image, behind = view.crop(photo), None
        wanted = background.kind != "none" and options.background
        if wanted and self.rng.random() < background.p_pos * self.strength and view.visible:
            behind = self._background(view, sample, options)
        if behind and background.stage == "before":
            image = composite(image, behind, view.mask)
        view.image = apply_photometric(image, draw_photometric(options.photometric, self.rng))
        if behind and background.stage == "after":
            view.image = composite(view.image, behind, view.mask)
        view.replaced = behind is not None
        return view

    def _background(self, view: View, sample: Sample, options: ViewOptions) -> Image.Image | None:
        """Background of a view, of its size; None if no other photo of the batch lends its tile."""
        background, crop = self.config.background, options.crop
        if background.kind == "rm":
            level = round(255 * self.rng.uniform(*background.grey))
            return Image.new("RGB", (crop.size, crop.size), (level, level, level))
        lenders = [other for other in self.samples if other.lends and other is not sample]
        if not lenders:
            return None
        tile = lenders[self.rng.integers(len(lenders))].tile
        if background.stage == "before":
            return view.crop(tile)
        if background.donor == "none":
            return crop_view(tile, (0, 0, 1, 1), False, crop.size)
        crop_box = draw_crop_box(*tile.size, crop, None, self.rng)
        behind = crop_view(tile, crop_box, self.rng.random() < crop.flip_p, crop.size)
        if background.donor == "crop":
            return behind
        return apply_photometric(behind, draw_photometric(options.photometric, self.rng))

    def _negatives(self, keys: list[View], views: list[View]) -> dict[str, np.ndarray]:
        """Keys of other photos, the matched ones with the background of `views`; and `matched`."""
        options, count = self.config.background, len(keys)
        names = options.negative_names
        images = {name: _images(count, keys[0].image.height) for name in names}
        matched = np.zeros((count, len(names)), bool)
        for place, (key, view) in enumerate(zip(keys, views, strict=True)):
            # Other photos, all different where there are enough.
            steps = np.resize(1 + self.rng.permutation(count - 1), len(names))
            for number, (name, step) in enumerate(zip(names, steps, strict=True)):
                image = keys[(place + step) % count].image
                coin = key.replaced if options.coupled else self.rng.random() < options.p_neg * self.strength
                if coin and view.visible:
                    image, matched[place, number] = composite(image, view.image, view.mask), True
                images[name][place] = image
        return images | {"matched": matched}


def _images(count: int, size: int) -> np.ndarray:
    return np.empty((count, size, size, 3), np.uint8)


class Batches(Dataset[dict[str, np.ndarray]]):
    """One rank's batches by plan; a plan gives the same batch in every worker."""

    def __init__(self, config: LoaderConfig, rank: int, world_size: int) -> None:
        if isinstance(config.shards, str):
            raise UserError(f"data.shards={config.shards}: the torchvision loader reads folders; give one")
        self.samples = Shards(config.shards, config.verify)
        require_masks(config, self.samples.mask_size)
        self.batch_size = config.batch_size // world_size
        self.evaluation = config.method.complete
        self.part = range(*(len(self.samples) * number // world_size for number in (rank, rank + 1)))
        self._config, self._rank = config, rank
        self._views = config.single_views

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        batches = len(self.samples) / self._config.batch_size
        return math.ceil(batches) if self.evaluation else math.floor(batches)

    def plans(self) -> Iterator[Plan]:
        """All batches of the run, without end, so that workers go on into the next epoch.

        An epoch is the set, shuffled except for evaluation, of which each rank takes one part. What its last
        batch leaves over is not used; in evaluation the last batch is filled up with the part's last photo.
        """
        for epoch in itertools.count():
            order = np.arange(len(self.samples))
            if not self.evaluation:
                np.random.default_rng([self._config.seed, epoch]).shuffle(order)
            order = np.pad(order[self.part.start : self.part.stop], (0, self.batch_size), mode="edge")
            for number in range(len(self)):
                yield epoch, number, order[number * self.batch_size :][: self.batch_size]

    def __getitem__(self, plan: Plan) -> dict[str, np.ndarray]:
        epoch, number, chosen = plan
        samples = [self.samples[index] for index in chosen]
        if self.evaluation:
            batch = self._central(samples)
        else:
            warmup = self._config.background.warmup_epochs
            strength = min(1.0, (epoch + number / len(self)) / warmup) if warmup else 1.0
            # Seeds count as padded with zeros: one ending in 0 could be the shuffle's.
            rng = np.random.default_rng([self._config.seed, epoch, number, self._rank + 1])
            batch = Maker(self._config, samples, rng, strength).batch(self._views)
        return batch | {"label": np.array([sample.label for sample in samples], np.int64)}

    def _central(self, samples: list[Sample]) -> dict[str, np.ndarray]:
        size = self._config.views["image"].crop.size
        decoding, resize = self._config.decoding, self._config.resize
        photos = (decode(sample.photo, decoding.upright) for sample in samples)
        if border := decoding.border:
            photos = (
                photo.crop((border, border, photo.width - border, photo.height - border)) for photo in photos
            )
        if resize:
            photos = (F.resize(photo, resize) for photo in photos)
        return {"image": np.stack([np.asarray(F.center_crop(photo, size)) for photo in photos])}


class TorchvisionLoader:
    """Batches of one rank, as the DALI loader gives them: dicts of tensors, views on the device.

    Views are float [N, 3, H, W] in channels_last memory format (RotNet: [N, 4, 3, H, W]); on the CPU are
    `label` int64 [N], `replaced` bool [N, views], with swaps `matched` bool [N, negatives], in
    evaluation `valid` bool [N]. Iterating gives one epoch, or the rest of it; then the next. Use `close` or a
    `with` block to end the workers.
    """

    def __init__(
        self,
        config: LoaderConfig,
        rank: int = 0,
        world_size: int = 1,
        *,
        workers: int = 2,
        device: torch.device | str | None = None,
    ) -> None:
        """Open the shards; workers start with the first batch.

        Args:
            config: what to read and which views to make.
            rank, world_size: this process among all that train together.
            workers: processes that make batches; with 0 this one does.
            device: of the views; by default the current GPU, if there is one and config.device allows it.
        """
        if config.batch_size % world_size:
            raise UserError(f"data.batch_size={config.batch_size}: not divisible by {world_size} ranks")
        dataset = Batches(config, rank, world_size)
        if not len(dataset) or not len(dataset.part):
            raise UserError(f"data.batch_size={config.batch_size}: only {len(dataset.samples)} photos")
        if config.background.uses_tiles and dataset.batch_size < 2:
            raise UserError(f"data.batch_size={config.batch_size}: two photos a rank are needed to swap")
        gpu = config.device == "gpu" or (config.device == "auto" and torch.cuda.is_available())
        self.device = torch.device(device or ("cuda" if gpu else "cpu"))
        self.epoch, self.batch = 0, 0
        self._config, self._dataset = config, dataset
        self._batches: Iterator[dict[str, torch.Tensor]] | None = None
        self._loader: DataLoader[dict[str, np.ndarray]] | None = DataLoader(
            dataset,
            batch_size=None,
            sampler=dataset.plans(),
            num_workers=workers,
            prefetch_factor=config.prefetch if workers else None,
            pin_memory=self.device.type == "cuda",
        )

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._dataset)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the current epoch that have not been given yet."""
        while self.batch < len(self):
            if self._loader is None:
                raise RuntimeError("this loader is closed")
            if self._batches is None:
                self._batches = iter(self._loader)
            batch = {name: self._finish(tensor) for name, tensor in next(self._batches).items()}
            if self._dataset.evaluation:
                left = len(self._dataset.part) - self.batch * self._dataset.batch_size
                batch["valid"] = torch.arange(self._dataset.batch_size) < left
            self.batch += 1
            yield batch
        self.epoch, self.batch = self.epoch + 1, 0

    def _finish(self, tensor: torch.Tensor) -> torch.Tensor:
        """uint8 [N, H, W, 3] -> (x / 255 - mean) / std as float [N, 3, H, W]; anything else as it is."""
        if tensor.dtype != torch.uint8:
            return tensor
        images = tensor.to(self.device, non_blocking=True)
        if self._config.pipeline == "rotnet":
            images = torch.stack([images.rot90(turns, (1, 2)) for turns in range(4)], dim=1)
        mean, std = torch.tensor(self._config.normalise.mean), torch.tensor(self._config.normalise.std)
        # Once for each pixel of a row: three numbers at a time would be slow.
        width = images.shape[-2]
        scale, offset = (row.repeat(width).to(self.device) for row in (1 / (255 * std), -mean / std))
        values = images.flatten(-2).float()
        torch.addcmul(offset, values, scale, out=values)
        values = values.half() if self._config.half else values
        return values.unflatten(-1, (width, 3)).movedim(-1, -3)

    def close(self) -> None:
        """End the workers: the iterator joins them as it goes."""
        self._batches = self._loader = None
        self._dataset.samples.close()

    def __enter__(self) -> "TorchvisionLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
