"""Moving rows between real processes."""

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.conftest import free_port
from train.distributed import gather_rows, process_group, rank, take_rows


def _worker(number: int, world_size: int, folder: str, port: int) -> None:
    os.environ.update(
        RANK=str(number),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    with process_group(torch.device("cpu")):
        count = 4
        everything = torch.arange(world_size * count * 6).float().reshape(-1, 3, 1, 2)
        mine = everything[number * count : (number + 1) * count].contiguous(memory_format=torch.channels_last)
        order = torch.randperm(world_size * count, generator=torch.Generator().manual_seed(5))
        shuffled = take_rows(mine, order)
        back = take_rows(shuffled, torch.argsort(order))
        vectors = take_rows(mine.flatten(1), order)
        result = {
            "shuffled": torch.equal(gather_rows(shuffled), everything[order]),
            "back": torch.equal(back, mine),
            "vectors": torch.equal(gather_rows(vectors), everything.flatten(1)[order]),
            "rank": rank(),
        }
        torch.save(result, Path(folder) / f"{number}.pt")


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_rows_are_reordered_across_ranks(tmp_path: Path, world_size: int) -> None:
    mp.spawn(_worker, (world_size, str(tmp_path), free_port()), world_size)
    for number in range(world_size):
        result = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert result == {"shuffled": True, "back": True, "vectors": True, "rank": number}
