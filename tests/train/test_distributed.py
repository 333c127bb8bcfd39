"""Between real processes: rows move where they belong, and two ranks do what one does with the whole
batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dali_bgaug.errors import UserError
from tests.helpers.processes import run
from tests.helpers.runs import read_losses, read_recipe, train_rank, use_tiny_net, write_recipe
from train import batch_norm
from train.batch_norm import Grouping, group_batch_norm, plan_groups
from train.distributed import all_gather_rows, all_reduce_mean, permute_rows, process_group, rank, world_size
from train.method import MethodOptions, Progress, Setting
from train.methods.byol import ByolOptions
from train.methods.moco import MocoOptions
from train.methods.rotnet import RotnetOptions
from train.methods.supervised import SupervisedOptions
from train.methods.swav import SwavOptions, sinkhorn
from train.monitor import Reading
from train.ranks import measure_ranks
from train.trainer import Trainer

PHOTOS = 8
STEPS = 2
VIEWS = {
    "moco_v2": {"query": 32, "key": 32, "negative": 32},
    "byol": {"view_1": 32, "view_2": 32},
    "swav": {"global_0": 32, "global_1": 32, "local_0": 16, "local_1": 16, "local_2": 16},
    "supervised": {"image": 32},
}


def _measured(reading: Reading) -> tuple[list[float], list[float], bool, bool]:
    """Waiting and seconds of steps of two batches; whether each rank was probed; whether on a GPU."""
    found = measure_ranks(reading, 2, torch.device("cpu"))
    probed = len(found.probe_ms) == world_size() and min(found.probe_ms) > 0
    return found.data_wait, found.step_s, probed, found.memory_mb is not None


def _rows(folder: Path) -> None:
    with process_group(torch.device("cpu")):
        count, number = 4, rank()
        everything = torch.arange(world_size() * count * 6).float().reshape(-1, 3, 1, 2)
        mine = everything[number * count : (number + 1) * count].contiguous(memory_format=torch.channels_last)
        order = torch.randperm(world_size() * count, generator=torch.Generator().manual_seed(5))
        shuffled = permute_rows(mine, order)
        result = {
            "shuffled": torch.equal(all_gather_rows(shuffled), everything[order]),
            "back": torch.equal(permute_rows(shuffled, torch.argsort(order)), mine),
            "vectors": torch.equal(
                all_gather_rows(permute_rows(mine.flatten(1), order)), everything.flatten(1)[order]
            ),
            "rank": number,
            "mean": all_reduce_mean(torch.tensor([float(number), 1.0])).tolist(),
            "log": _measured(Reading(images_per_s=100.0, data_wait=number / 4, batch_s=0.5)),
        }
        torch.save(result, folder / f"{number}.pt")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_rows_are_reordered_across_ranks(tmp_path: Path, ranks: int) -> None:
    run(_rows, tmp_path, ranks=ranks)
    for number in range(ranks):
        assert torch.load(tmp_path / f"{number}.pt") == {
            "shuffled": True,
            "back": True,
            "vectors": True,
            "rank": number,
            "mean": [(ranks - 1) / 2, 1.0],
            "log": ([0.0, 0.25, 0.5][:ranks], [1.0] * ranks, True, False),
        }


def _batch(name: str, step: int) -> dict[str, torch.Tensor]:
    """The same photos of all ranks, whatever their number; in double precision, so that nothing but the
    mathematics can differ."""
    generator = torch.Generator().manual_seed(step)
    shapes = {view: (PHOTOS, 3, size, size) for view, size in VIEWS.get(name, {}).items()}
    if name == "rotnet":
        shapes = {"image": (PHOTOS, 4, 3, 32, 32)}
    batch = {
        view: torch.randn(shape, generator=generator, dtype=torch.double) for view, shape in shapes.items()
    }
    return batch | {"label": torch.arange(PHOTOS) % 3}


def _steps(options: MethodOptions, folder: Path) -> None:
    """Some steps of SGD on this rank's part of every batch; rank 0 saves what came of it."""
    use_tiny_net()
    with process_group(torch.device("cpu")):
        ranks, number = world_size(), rank()
        own = slice(number * PHOTOS // ranks, (number + 1) * PHOTOS // ranks)
        torch.manual_seed(0)
        views = tuple(VIEWS.get(options.name, ()))
        method = options.build(Setting("resnet18", PHOTOS // ranks, views, classes=3)).double().train()
        module: nn.Module = method
        if ranks > 1:
            module = DistributedDataParallel(method, broadcast_buffers=False, gradient_as_bucket_view=True)
        optimizer = torch.optim.SGD(
            [p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9
        )
        found: dict[str, Any] = {"losses": []}
        for step in range(STEPS):
            progress = Progress(step, STEPS, epoch=0)
            batch = {view: rows[own] for view, rows in _batch(options.name, step).items()}
            method.begin_step(progress)
            optimizer.zero_grad()
            loss, _ = module(batch)
            loss.backward()
            method.before_update(progress)
            optimizer.step()
            method.after_update(progress)
            found["losses"].append(all_reduce_mean(loss.detach()).item())
        found["gradients"] = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        found["state"] = {
            name: value for name, value in method.state_dict().items() if not name.endswith("_extra_state")
        }
        if number == 0:
            torch.save(found, folder / f"{ranks}.pt")


@pytest.mark.parametrize(
    "options",
    [
        MocoOptions(dim=16, queue=32, bn_group=4, momentum=0.5),
        ByolOptions(hidden=32, dim=16, bn_group=8),
        ByolOptions(hidden=32, dim=16, bn_group=4),
        SwavOptions(hidden=32, dim=16, prototypes=12, bn_group=8, freeze_prototypes_steps=1),
        SwavOptions(
            hidden=32,
            dim=16,
            prototypes=12,
            bn_group=4,
            queue=8,
            queue_from_epoch=0,
            freeze_prototypes_steps=0,
        ),
        RotnetOptions(bn_group=8),
        SupervisedOptions(bn_group=8),
    ],
    ids=["moco", "byol-sync", "byol-groups", "swav-sync", "swav-queue", "rotnet", "supervised"],
)
def test_two_ranks_do_what_one_does(options: MethodOptions, tmp_path: Path) -> None:
    """Losses, gradients, weights after the update, queues and the first group's running statistics."""
    run(_steps, options, tmp_path, ranks=1)
    run(_steps, options, tmp_path, ranks=2)
    one, two = (torch.load(tmp_path / f"{ranks}.pt") for ranks in (1, 2))
    assert one["losses"] == pytest.approx(two["losses"], abs=1e-5)
    assert one["gradients"].keys() == two["gradients"].keys()
    assert max(gradient.abs().max() for gradient in one["gradients"].values()) > 1e-3
    for kind in ("gradients", "state"):
        for name, value in one[kind].items():
            torch.testing.assert_close(two[kind][name], value, atol=1e-5, rtol=1e-5, msg=f"{kind} {name}")


def _accumulate(recipe: Path, accumulate: int, folder: Path) -> None:
    """One step of the loop on eight photos: this rank's part of each of so many passes."""
    use_tiny_net()
    cpu = torch.device("cpu")
    with process_group(cpu):
        config = read_recipe(recipe, f"accumulate={accumulate}")
        with Trainer(config, cpu) as trainer:
            whole = _batch(config.method.name, 0)
            passes = []
            for number in range(accumulate):
                part = {name: rows.tensor_split(accumulate)[number] for name, rows in whole.items()}
                own = {name: rows.tensor_split(world_size())[rank()] for name, rows in part.items()}
                passes.append({name: v.float() if v.is_floating_point() else v for name, v in own.items()})
            loss = all_reduce_mean(trainer.step(iter(passes))["loss"])
            if rank() == 0:
                weights = dict(trainer.method.named_parameters())
                torch.save((loss, weights), folder / f"{world_size()}.pt")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bn_group"), [("byol", 4), ("supervised", 2)])
def test_two_ranks_accumulate_the_step_of_one(
    name: str, bn_group: int, textured: Path, tmp_path: Path
) -> None:
    """Two ranks, two passes of two photos each, statistics of one rank or of both: the step that one rank
    takes in one pass of eight photos."""
    recipe = write_recipe(tmp_path, textured, name, method={"bn_group": bn_group})
    run(_accumulate, recipe, 1, tmp_path, ranks=1)
    run(_accumulate, recipe, 2, tmp_path, ranks=2)
    one, two = (torch.load(tmp_path / f"{ranks}.pt") for ranks in (1, 2))
    torch.testing.assert_close(two[0], one[0], atol=1e-5, rtol=1e-5)
    for weight, value in one[1].items():
        torch.testing.assert_close(two[1][weight], value, atol=1e-5, rtol=1e-4, msg=weight)


def _bfloat16(recipe: Path, out: Path) -> None:
    train_rank(recipe, out, ("precision=bfloat16", "epochs=1"))


def test_shared_statistics_in_bfloat16(textured: Path, tmp_path: Path) -> None:
    run(_bfloat16, write_recipe(tmp_path, textured, "byol"), tmp_path / "out", ranks=2)
    losses = read_losses(tmp_path / "out")
    assert len(losses) == 6
    assert all(0 < loss < 8 for loss in losses)


def _codes(folder: Path) -> None:
    with process_group(torch.device("cpu")):
        scores = torch.randn(12, 7, generator=torch.Generator().manual_seed(2))
        codes = all_gather_rows(sinkhorn(scores.tensor_split(world_size())[rank()]))
        if rank() == 0:
            torch.save(codes, folder / f"{world_size()}.pt")


def test_sinkhorn_spans_ranks(tmp_path: Path) -> None:
    for ranks in (1, 2, 3):
        run(_codes, tmp_path, ranks=ranks)
    one, *more = (torch.load(tmp_path / f"{ranks}.pt") for ranks in (1, 2, 3))
    for codes in more:
        torch.testing.assert_close(codes, one, atol=1e-6, rtol=0)


def _normalise(folder: Path) -> None:
    """Four ranks in two groups of two."""
    with process_group(torch.device("cpu")):
        x = torch.randn(8, 5, 3, 3, generator=torch.Generator().manual_seed(rank() // 2))
        mine = x.chunk(2)[rank() % 2].clone().requires_grad_()
        network = group_batch_norm(nn.Sequential(nn.BatchNorm2d(5)), plan_groups(8, 4, True), "cpu")
        found = network(mine)
        weightless = nn.Sequential(nn.BatchNorm2d(5, affine=False))
        assert torch.equal(group_batch_norm(weightless, plan_groups(8, 4, True), "cpu")(mine), found)
        found.square().cumsum(0).sum().backward()
        torch.save((found.detach(), mine.grad, network[0].running_var), folder / f"{rank()}.pt")


def test_groups_of_ranks_share_statistics(tmp_path: Path) -> None:
    """Outputs, gradients and running statistics are those of one batch norm over each pair of ranks."""
    run(_normalise, tmp_path, ranks=4)
    for pair in (0, 1):
        x = torch.randn(8, 5, 3, 3, generator=torch.Generator().manual_seed(pair)).requires_grad_()
        plain = nn.BatchNorm2d(5)
        expected = plain(x)
        sum(part.square().cumsum(0).sum() for part in expected.chunk(2)).backward()
        for half in (0, 1):
            found, gradient, running_var = torch.load(tmp_path / f"{2 * pair + half}.pt")
            torch.testing.assert_close(found, expected.chunk(2)[half], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(gradient, x.grad.chunk(2)[half], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(running_var, plain.running_var)


@pytest.mark.parametrize(
    ("bn_group", "photos", "ranks", "synchronise", "expected"),
    [
        (None, 64, 8, True, Grouping()),
        (32, 32, 1, True, Grouping()),
        (32, 256, 1, True, Grouping(groups=8)),
        (512, 64, 64, True, Grouping(ranks=8)),
        (512, 64, 4, True, Grouping(ranks=4)),
        (512, 64, 64, False, Grouping()),
    ],
)
def test_plan_of_groups(
    monkeypatch: pytest.MonkeyPatch,
    bn_group: int | None,
    photos: int,
    ranks: int,
    synchronise: bool,
    expected: Grouping,
) -> None:
    monkeypatch.setattr(batch_norm, "world_size", lambda: ranks)
    assert plan_groups(bn_group, photos, synchronise) == expected


@pytest.mark.parametrize(
    ("bn_group", "photos", "ranks", "synchronise", "accumulate", "message"),
    [
        (48, 64, 1, True, 1, "bn_group=48: must divide a rank's batch, 64"),
        (96, 64, 4, True, 1, "4 ranks of 64 photos cannot be cut"),
        (128, 64, 3, True, 1, "3 ranks of 64 photos cannot be cut"),
        (None, 64, 1, True, 2, "accumulate=2: batch statistics"),
        (128, 64, 1, True, 2, "accumulate=2: batch statistics"),
        (128, 64, 2, False, 2, "accumulate=2: batch statistics"),
    ],
)
def test_impossible_groups_are_errors(
    monkeypatch: pytest.MonkeyPatch,
    bn_group: int | None,
    photos: int,
    ranks: int,
    synchronise: bool,
    accumulate: int,
    message: str,
) -> None:
    monkeypatch.setattr(batch_norm, "world_size", lambda: ranks)
    with pytest.raises(UserError, match=message):
        plan_groups(bn_group, photos, synchronise, accumulate)
