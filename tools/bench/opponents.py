"""Other loaders, doing as much as they can of MoCo-v2's two plain views from the same photos.

    dali        DALI's own operators, as its documentation strings them together
    webdataset  the library of that name, torchvision and PIL
    ffcv        FFCV in a Python of its own (`--ffcv PYTHON`): it needs NumPy below 2 (`ffcv_child.py`)

What one cannot do is in `CANNOT`: where it does less, it is faster than it would be.
"""

import json
import multiprocessing
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode
from PIL import Image, ImageFilter
from torchvision import transforms

from dali_bgaug.errors import UserError
from dali_bgaug.shards import Manifest
from pipelines import LoaderConfig
from pipelines.build import default_threads
from tools.bench.stages import BATCHES_PER_WORKER

PIPELINE = "moco_v2"
"""Whose views they make."""
_OURS = "foreground-aware crop boxes, backgrounds, negatives, exact resume"
CANNOT = {
    "dali": ["jitter: fixed order, contrast about mid-grey, a linear hue", _OURS],
    "webdataset": ["EXIF orientation, moving batches to a GPU", _OURS],
    "ffcv": [
        "hue, grayscale and blur: it has no such transforms",
        "one coin for the whole jitter, in random order: brightness, contrast and saturation have one each",
        "decoding a photo once for both views: its crop is part of the decoder",
        "bilinear resizing with antialiasing (it averages areas), EXIF orientation, CMYK",
        "moving batches to a GPU",
        _OURS,
    ],
}


def dali_pipeline(config: LoaderConfig, manifest: Manifest, device_id: int | None) -> Pipeline:
    """Two views by DALI's operators alone."""
    crop, photometric = config.views["query"].crop, config.views["query"].photometric

    def spread(width: float) -> DataNode:
        return fn.random.uniform(range=(max(0.0, 1 - width), 1 + width))

    def view(photo: DataNode) -> DataNode:
        image = fn.random_resized_crop(
            photo, size=crop.size, random_area=list(crop.scale), random_aspect_ratio=list(crop.ratio)
        )
        if fn.random.coin_flip(probability=photometric.jitter_p, dtype=types.BOOL):
            image = fn.color_twist(
                image,
                brightness=spread(photometric.brightness),
                contrast=spread(photometric.contrast),
                saturation=spread(photometric.saturation),
                hue=fn.random.uniform(range=(-360 * photometric.hue, 360 * photometric.hue)),
            )
        if fn.random.coin_flip(probability=photometric.grey_p, dtype=types.BOOL):
            image = fn.hsv(image, saturation=0.0)
        if fn.random.coin_flip(probability=photometric.blur_p, dtype=types.BOOL):
            image = fn.gaussian_blur(image, sigma=fn.random.uniform(range=photometric.blur_sigma))
        return fn.crop_mirror_normalize(
            image,
            mirror=fn.random.coin_flip(probability=crop.flip_p),
            output_layout="HWC",
            mean=[255 * value for value in config.normalise.mean],
            std=[255 * value for value in config.normalise.std],
        )

    @pipeline_def(
        batch_size=config.batch_size,
        num_threads=config.threads or default_threads(),
        device_id=device_id,
        prefetch_queue_depth=config.prefetch,
        enable_conditionals=True,
    )
    def define() -> Any:
        encoded, label = fn.readers.webdataset(
            paths=[str(config.shards / shard.name) for shard in manifest.shards],
            index_paths=[str(config.shards / shard.index) for shard in manifest.shards],
            ext=["jpg", "cls"],
            random_shuffle=True,
            initial_fill=config.shuffle_buffer,
            missing_component_behavior="error",
        )
        device = "cpu" if device_id is None else "mixed"
        photo = fn.decoders.image(encoded, device=device, output_type=types.RGB)
        return view(photo), view(photo), label

    return define()


class WebDatasetStage:
    """webdataset as its documentation advises: shards drawn for ever, batches made in the workers.

    A worker makes a batch only for a token, and gets a round's at its start; a plain WebLoader would go on
    after a round until its queues are full.
    """

    def __init__(self, config: LoaderConfig, workers: int) -> None:
        import webdataset  # an extra: this opponent is left out without it

        self._workers = workers
        self._gate = _Gate(workers)
        views = _TwoViews(config)
        dataset = (
            webdataset.WebDataset(
                sorted(str(path) for path in config.shards.glob("*.tar")),
                resampled=True,
                shardshuffle=False,
                select_files=_is_photo_or_label,
            )
            .shuffle(min(1000, config.shuffle_buffer))
            .decode("pil")
            .map(views)
            .batched(config.batch_size, partial=False)
            .compose(self._gate)
        )
        self._children: set[Any] = set()
        self._batches = iter(
            webdataset.WebLoader(
                dataset,
                batch_size=None,
                num_workers=workers,
                prefetch_factor=config.prefetch,
                persistent_workers=True,
            )
        )

    def run(self, batches: int) -> int:
        """Make at least so many batches, as many in every worker."""
        each = max(BATCHES_PER_WORKER, -(-batches // self._workers))
        self._gate.open(each)
        before = set(multiprocessing.active_children())
        for _ in range(each * self._workers):
            next(self._batches)
            if not self._children:  # the first batch starts them
                self._children = set(multiprocessing.active_children()) - before
                self.first_at = time.perf_counter()
        return each * self._workers

    def __enter__(self) -> "WebDatasetStage":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:  # they wait for tokens, and the loader would wait for them
            child.terminate()
            child.join()


class _Gate:
    """The last stage of a worker: takes one of its tokens before it asks for a batch."""

    def __init__(self, workers: int) -> None:
        # One semaphore each: batches are expected from the workers in turn.
        self._tokens = [multiprocessing.Semaphore(0) for _ in range(workers)]

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        tokens = self._tokens[torch.utils.data.get_worker_info().id]
        while True:
            tokens.acquire()
            yield next(batches)  # without end

    def open(self, batches: int) -> None:
        for tokens in self._tokens:
            for _ in range(batches):
                tokens.release()


class _TwoViews:
    """Two views of one photo, torchvision's way."""

    def __init__(self, config: LoaderConfig) -> None:
        crop, photometric = config.views["query"].crop, config.views["query"].photometric
        jitter = transforms.ColorJitter(
            photometric.brightness, photometric.contrast, photometric.saturation, photometric.hue
        )
        self._make = transforms.Compose(
            [
                transforms.RandomResizedCrop(crop.size, scale=crop.scale, ratio=crop.ratio),
                transforms.RandomApply([jitter], p=photometric.jitter_p),
                transforms.RandomGrayscale(p=photometric.grey_p),
                transforms.RandomApply([_Blur(*photometric.blur_sigma)], p=photometric.blur_p),
                transforms.RandomHorizontalFlip(p=crop.flip_p),
                transforms.ToTensor(),
                transforms.Normalize(config.normalise.mean, config.normalise.std),
            ]
        )

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        photo = sample["jpg"].convert("RGB")
        return {"query": self._make(photo), "key": self._make(photo), "label": sample["cls"]}


class _Blur:
    """PIL's, as MoCo-v2's own code uses it."""

    def __init__(self, low: float, high: float) -> None:
        self._range = low, high

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self._range)))


def _is_photo_or_label(name: str) -> bool:
    return name.endswith((".jpg", ".cls")) and not name.endswith(".tile.jpg")


class FfcvStage:
    """FFCV in a child process: it gets a number of batches as a line and answers when they are made."""

    def __init__(self, config: LoaderConfig, workers: int, python: Path, beton: Path) -> None:
        crop, photometric = config.views["query"].crop, config.views["query"].photometric
        options = {
            "size": crop.size,
            "scale": crop.scale,
            "ratio": crop.ratio,
            "spread": [photometric.brightness, photometric.contrast, photometric.saturation],
            "jitter_p": photometric.jitter_p,
            "batch_size": config.batch_size,
            "workers": workers,
            "mean": config.normalise.mean,
            "std": config.normalise.std,
        }
        child = Path(__file__).with_name("ffcv_child.py")
        command = [str(python), str(child), str(config.shards), str(beton), json.dumps(options)]
        self._said = beton.with_suffix(".log")  # a pipe that nobody reads would fill
        try:
            with self._said.open("w") as log:
                self._child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
        except OSError as error:
            raise UserError(f"--ffcv={python}: cannot be run: {error}") from None
        self._answer()  # it is ready: written, compiled, warm

    def _answer(self) -> int:
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            lines = self._said.read_text().split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it ended without a word")
            remedy = "docs/benchmark.md says how to install FFCV, or leave --ffcv out"
            raise UserError(f"--ffcv: {last}; {remedy}")
        return int(line)

    def run(self, batches: int) -> int:
        """Make so many batches."""
        self._child.stdin.write(f"{batches}\n")
        self._child.stdin.flush()
        return self._answer()

    def __enter__(self) -> "FfcvStage":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()
