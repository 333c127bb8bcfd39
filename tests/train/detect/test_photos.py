"""Photos as tensors, and which of them a step sees."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dali_bgaug.errors import UserError
from train.detect.masks import Polygons
from train.detect.objects import AnnotatedPhoto, PhotoObjects
from train.detect.photos import TrainingBatches, example, read_photo


def _photo(path: Path, width: int = 8, height: int = 6) -> AnnotatedPhoto:
    """Red rises with x; one object, its mask a rectangle of 2 x 3 pixels."""
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[..., 0] = 10 * np.arange(8)
    Image.fromarray(pixels).save(path)
    ring = np.array([[1, 2], [3, 2], [3, 5], [1, 5]], float)
    boxes = np.array([[1, 2, 3, 5]], np.float32)
    objects = PhotoObjects(boxes, np.array([4]), np.array([False]), (Polygons((ring,)),))
    return AnnotatedPhoto("1", path, width, height, objects)


def test_a_photo_to_train_with(tmp_path: Path) -> None:
    pixels, target = example(_photo(tmp_path / "a.png"), mirrored=False)
    assert (pixels.shape, pixels.dtype) == ((3, 6, 8), torch.float32)
    assert (255 * pixels[0, 0]).round().tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert target["boxes"].tolist() == [[1, 2, 3, 5]]
    assert target["labels"].tolist() == [5]  # 0 is background
    assert target["masks"].nonzero()[:, 1:].min(0).values.tolist() == [2, 1]
    assert int(target["masks"].sum()) == 6


def test_a_mirrored_photo(tmp_path: Path) -> None:
    pixels, target = example(_photo(tmp_path / "a.png"), mirrored=True)
    assert (255 * pixels[0, 0]).round().tolist() == [70, 60, 50, 40, 30, 20, 10, 0]
    assert target["boxes"].tolist() == [[5, 2, 7, 5]]
    assert target["masks"].nonzero()[:, 1:].min(0).values.tolist() == [2, 5]


def test_photos_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a.png: is of 8 x 6 pixels, its annotation says 6 x 8"):
        read_photo(_photo(tmp_path / "a.png", 6, 8))
    photo = _photo(tmp_path / "b.png")
    photo.path.write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="b.png: cannot be decoded"):
        read_photo(photo)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_photo_comes_once_before_any_comes_again(ranks: int) -> None:
    """Seven photos in batches of four, whatever the ranks; half of them are mirrored, others each time."""
    parts = [TrainingBatches(range(7), 3, 4, rank, ranks, flip=True) for rank in range(ranks)]
    drawn = [row for step in range(14) for part in parts for row in part.rows(step)]
    turns = [drawn[start : start + 7] for start in range(0, 56, 7)]
    assert all(sorted(number for number, _ in turn) == list(range(7)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 8
    assert 18 <= sum(mirrored for _, mirrored in drawn) <= 38
    whole = TrainingBatches(range(7), 3, 4, 0, 1, flip=True)
    assert drawn[8:12] == whole.rows(2)
    assert not any(mirrored for _, mirrored in TrainingBatches(range(7), 3, 4, 0, 1, flip=False).rows(0))


def test_batches_come_in_order(tmp_path: Path) -> None:
    photos = [_photo(tmp_path / f"{number}.png") for number in range(5)]
    batches = TrainingBatches(photos, 0, 2, 0, 1, flip=True)
    read = list(batches.read(3, 4, threads=2))
    assert len(read) == 4
    for step, batch in zip(range(3, 7), read, strict=True):
        for (pixels, _), (_, mirrored) in zip(batch, batches.rows(step), strict=True):
            assert (pixels[0, 0, 0] > 0) == mirrored
