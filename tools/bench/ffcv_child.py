"""FFCV 1.0.2 doing what it can of MoCo-v2's two views, in a Python of its own. No part of this project is
imported: it runs where NumPy is below 2. `docs/benchmark.md` says how to make such a Python.

    PYTHON tools/bench/ffcv_child.py SHARDS OUT.beton OPTIONS

It writes the shards' photos into OUT.beton, their own bytes, and answers `0` when it is ready; then for every
line N it makes N batches and answers `N`. Before and after no work is under way.
"""

import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may print there
# OpenMP's threads spin while they wait.
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "tbb workqueue omp")

import numpy as np  # noqa: E402
from ffcv.fields import IntField, RGBImageField  # noqa: E402
from ffcv.fields.rgb_image import IMAGE_MODES, RandomResizedCropRGBImageDecoder  # noqa: E402
from ffcv.loader import Loader, OrderOption  # noqa: E402
from ffcv.loader.epoch_iterator import EpochIterator  # noqa: E402
from ffcv.pipeline.pipeline_spec import PipelineSpec  # noqa: E402
from ffcv.transforms import (  # noqa: E402
    NormalizeImage,
    RandomBrightness,
    RandomContrast,
    RandomHorizontalFlip,
    RandomSaturation,
    ToTensor,
    ToTorchImage,
)
from ffcv.writer import DatasetWriter  # noqa: E402
from PIL import Image  # noqa: E402

PAGE = 1 << 23
"""A photo can be no longer than a page of the file."""
AHEAD = 3
"""Batches made ahead, FFCV's default."""


class JpegField(RGBImageField):
    """A JPEG as it is, where RGBImageField would encode pixels anew: (bytes, height, width)."""

    def encode(self, destination: Any, image: Any, malloc: Any) -> None:
        """Store it."""
        data, height, width = image
        destination["mode"] = IMAGE_MODES["jpg"]
        destination["height"], destination["width"] = height, width
        destination["data_ptr"], storage = malloc(data.nbytes)
        storage[:] = data


class Photos:
    """By number: ((bytes, height, width), label 0). Only what FFCV's decoder can decode: its errors pass
    unnoticed."""

    def __init__(self, shards: Path) -> None:
        self._places = [place for path in sorted(shards.glob("*.tar")) for place in _jpegs(path)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Any:
        path, offset, size, height, width = self._places[number]
        return (np.fromfile(path, np.uint8, size, offset=offset), height, width), 0


def _jpegs(path: Path) -> Iterator[tuple[Path, int, int, int, int]]:
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".jpg") and not member.name.endswith(".tile.jpg"):
                photo = Image.open(tar.extractfile(member))
                if photo.format == "JPEG" and photo.mode in ("RGB", "L") and member.size <= PAGE:
                    yield path, member.offset_data, member.size, photo.height, photo.width


class Stage:
    """`run` makes so many batches."""

    def __init__(self, beton: Path, options: dict[str, Any]) -> None:
        self._batch, self._rng = options["batch_size"], np.random.default_rng(0)
        self._left = np.empty(0, np.uint64)
        self._loader = Loader(
            str(beton),
            batch_size=self._batch,
            num_workers=options["workers"],
            os_cache=True,
            order=OrderOption.RANDOM,
            seed=0,
            batches_ahead=AHEAD,
            custom_fields={"image": RGBImageField},
            pipelines={"image": None, "query": _view(options), "key": _view(options)},
        )
        # A new iterator allocates all its batches anew: nothing in an epoch of ImageNet, much in a round.
        graph = self._loader.graph
        memory = graph.allocate_memory(self._batch, AHEAD + 2)
        graph.allocate_memory = lambda *_: memory

    def run(self, batches: int) -> int:
        """Shuffled epochs end to end, however small the set is."""
        while len(self._left) < batches * self._batch:
            self._left = np.concatenate([self._left, self._rng.permutation(self._loader.indices)])
        order, self._left = np.split(self._left, [batches * self._batch])
        iterator = EpochIterator(self._loader, order)
        made = sum(1 for _ in iterator)
        iterator.join()
        return made


def _view(options: dict[str, Any]) -> PipelineSpec:
    """A view; every one needs operations of its own."""
    adjust = zip((RandomBrightness, RandomContrast, RandomSaturation), options["spread"])
    statistics = [255 * np.array(options[name]) for name in ("mean", "std")]
    return PipelineSpec(
        "image",
        decoder=RandomResizedCropRGBImageDecoder(
            (options["size"],) * 2, scale=tuple(options["scale"]), ratio=tuple(options["ratio"])
        ),
        transforms=[
            RandomHorizontalFlip(),
            *(transform(spread, p=options["jitter_p"]) for transform, spread in adjust),
            NormalizeImage(*statistics, np.float32),
            ToTensor(),
            ToTorchImage(channels_last=True),
        ],
    )


def main() -> None:
    """Be a child: see above."""
    shards, beton, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    writer = DatasetWriter(
        str(beton), {"image": JpegField(write_mode="jpg"), "label": IntField()}, page_size=PAGE, num_workers=1
    )
    writer.from_indexed_dataset(Photos(shards))
    stage = Stage(beton, options)
    stage.run(AHEAD + 2)  # compiles, and touches all memory
    print(0, file=answers, flush=True)
    for line in sys.stdin:
        print(stage.run(int(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
