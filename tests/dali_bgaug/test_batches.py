"""The operators that plan and render, by a renderer that only looks."""

from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types

from dali_bgaug.batches import Batches, ViewMaker
from dali_bgaug.reading import Seeds, count_iterations
from dali_bgaug.views.options import BackgroundOptions, CropOptions, NormaliseOptions, ViewOptions
from dali_bgaug.views.plan import Recipe
from dali_bgaug.views.render import Rendered
from dali_bgaug.views.table import TILE, Table

PHOTOS = [np.full((4 + number, 6, 3), number, np.uint8) for number in range(3)]
RECIPE = Recipe(
    {"query": ViewOptions(crop=CropOptions(size=8)), "key": ViewOptions(crop=CropOptions(size=8))},
    BackgroundOptions(kind="swaps", p_pos=0.4),
    NormaliseOptions(),
)


class Looking:
    """A renderer whose pictures say the batch's number."""

    def __init__(self) -> None:
        self.tables: list[Table] = []
        self.sizes: list[list[list[int]]] = []
        self.closed = False

    def render(self, table: Table, photos: Any, tiles: Any, masks: torch.Tensor | None) -> Rendered:
        assert masks is not None and masks.tolist() == [[0, 1], [1, 2], [2, 3]]
        pictures = {
            slot.name: torch.full(slot.shape(table.count), float(len(self.tables))) for slot in table.slots
        }
        self.tables.append(table)
        self.sizes.append(photos.sizes.tolist())
        return Rendered(pictures, torch.zeros(len(table.jobs), 4), torch.arange(len(table.jobs)) % 2 == 0)

    def close(self) -> None:
        self.closed = True


def _batches(renderer: Looking, checkpoint: bytes | None = None) -> tuple[Batches, list[str]]:
    maker = ViewMaker(RECIPE, renderer, Seeds(0, 0), lambda _: 1.0, torch.device("cpu"))
    names: list[str] = []

    def constant(values: list[np.ndarray], ndim: int) -> Any:
        return fn.external_source(source=lambda: values, batch=True, dtype=types.UINT8, ndim=ndim)

    @pipeline_def(
        batch_size=3, num_threads=1, device_id=None, prefetch_queue_depth=2, enable_checkpointing=True,
        checkpoint=checkpoint,
    )  # fmt: skip
    def define() -> tuple[Any, ...]:
        tile = constant([np.zeros(length, np.uint8) for length in (5, 0, 9)], 1)
        planned = maker.plan(count_iterations(3), tile)
        images = {
            "photo": constant(PHOTOS, 3),
            "mask": constant([np.array([n, n + 1], np.uint8) for n in range(3)], 1),
            "tile": constant(PHOTOS, 3),
        }
        outputs = maker.render(planned, **images)
        outputs |= {"cls": constant([np.frombuffer(b"%03d" % n, np.uint8) for n in (7, 0, 120)], 1)}
        outputs |= {"planned": planned}
        names[:] = outputs
        return tuple(outputs.values())

    pipeline: Pipeline = define()
    return Batches(pipeline, names, maker), names


def test_batches_are_rendered_in_the_order_they_were_planned_in() -> None:
    batches, _ = _batches(renderer := Looking())
    for number in range(4):
        batch = batches.take()
        assert batch["query"].shape == batch["negative"].shape == (3, 3, 8, 8)
        assert batch["query"].is_contiguous(memory_format=torch.channels_last)
        assert (batch["query"] == number).all()
        table = renderer.tables[number]
        assert batch["replaced"].tolist() == (table.replaced % 2 == 0).tolist()
        assert batch["matched"].tolist() == (table.matched % 2 == 0).tolist()
        assert batch["label"].tolist() == [7, 0, 120]
        assert renderer.sizes[number] == [[4, 6], [5, 6], [6, 6]]
    batches.close()
    assert renderer.closed


def test_only_tiles_that_lend_and_are_used_are_decoded() -> None:
    batches, _ = _batches(renderer := Looking())
    seen = set()
    for number in range(6):
        used = batches.take()["planned"].tolist()
        jobs = renderer.tables[number].jobs
        assert used == [n in jobs["sample"][jobs["source"] == TILE] for n in range(3)]
        assert not used[1]
        seen.add(tuple(used))
    assert len(seen) > 1
    batches.close()


def test_a_batch_keeps_its_values_while_others_are_made() -> None:
    batches, _ = _batches(Looking())
    kept = [batches.take() for _ in range(8)]
    assert [int(batch["key"].unique()) for batch in kept] == list(range(8))
    batches.close()


def test_a_checkpoint_goes_on_with_the_same_plans() -> None:
    batches, _ = _batches(renderer := Looking())
    for _ in range(3):
        batches.take()
    resumed, _ = _batches(again := Looking(), batches.checkpoint())
    batches.take(), resumed.take()
    assert np.array_equal(again.tables[0].jobs, renderer.tables[3].jobs)
    assert not np.array_equal(again.tables[0].jobs, renderer.tables[0].jobs)
    batches.close(), resumed.close()


def test_what_fails_in_rendering_is_raised_when_the_batch_is_taken() -> None:
    class Failing(Looking):
        def render(self, *_: Any) -> Rendered:
            raise ValueError("no such picture")

    batches, _ = _batches(Failing())
    with pytest.raises(RuntimeError, match="no such picture"):
        batches.take()
    batches.close()
