"""SwAV against numbers recorded from the original code, and its loss, codes, queue and prototypes by
themselves."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dali_bgaug.config import validate
from dali_bgaug.errors import UserError
from train.method import Progress, Setting
from train.methods.swav import Swav, SwavOptions, sinkhorn, swapped_prediction_loss

DATA = Path(__file__).parents[1] / "data"
VIEWS = ("global_0", "global_1", "local_0", "local_1", "local_2")


def _reference(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(DATA / f"{name}.npz").items()}


def test_codes_are_the_originals() -> None:
    reference = _reference("swav_sinkhorn")
    codes = sinkhorn(reference["scores"])
    torch.testing.assert_close(codes, reference["Q_eps0.05_it3"], atol=1e-5, rtol=0)


def test_loss_and_gradient_are_the_originals() -> None:
    reference = _reference("swav_loss")
    output = reference["output"].clone().requires_grad_()
    scores = output.reshape(8, 4, 10)  # two global and six local views of four photos
    codes = torch.stack([sinkhorn(view, float(reference["epsilon"])) for view in scores[:2]])
    torch.testing.assert_close(codes[0], reference["q_crop0"], atol=1e-5, rtol=0)
    torch.testing.assert_close(codes[1], reference["q_crop1"], atol=1e-5, rtol=0)
    loss = swapped_prediction_loss(scores, codes, float(reference["temperature"]))
    torch.testing.assert_close(loss, reference["loss"], atol=1e-5, rtol=0)
    loss.backward()
    torch.testing.assert_close(output.grad, reference["grad_output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_codes_are_assignments(scale: float) -> None:
    """Rows sum to 1 whatever the scores; after many iterations prototypes are used equally."""
    scores = scale * torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    codes = sinkhorn(scores)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(40), atol=1e-5, rtol=0)
    assert torch.isfinite(codes).all()
    if scale == 1.0:
        equal = sinkhorn(scores, epsilon=1.0, iterations=200).sum(dim=0)
        torch.testing.assert_close(equal, torch.full((8,), 5.0), atol=1e-3, rtol=0)


def test_codes_are_float32_under_autocast() -> None:
    scores = torch.randn(12, 7, generator=torch.Generator().manual_seed(0))
    expected = sinkhorn(scores)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sinkhorn(scores), expected)
    assert sinkhorn(scores.bfloat16()).dtype == torch.float32


def test_a_collapsed_network_has_the_loss_of_chance() -> None:
    codes = torch.rand(2, 6, 30)
    loss = swapped_prediction_loss(torch.zeros(8, 6, 30), codes / codes.sum(dim=2, keepdim=True))
    assert loss.item() == pytest.approx(math.log(30), abs=1e-5)
    assert SwavOptions().build(Setting("resnet18", 4, VIEWS)).chance_loss == pytest.approx(8.006, abs=1e-3)


def _swav(**options: object) -> tuple[Swav, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    values = {"hidden": 32, "dim": 16, "prototypes": 12, "freeze_prototypes_steps": 2, **options}
    method = SwavOptions(**values).build(Setting("resnet18", 4, VIEWS))
    sizes = {name: 32 if name.startswith("global") else 16 for name in VIEWS}
    return method.train(), {name: torch.randn(4, 3, size, size) for name, size in sizes.items()}


def test_one_pass_a_resolution_and_one_of_the_head() -> None:
    method, batch = _swav()
    seen = []
    method.network.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    method.head.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    loss, metrics = method(batch)
    assert seen == [(8, 3, 32, 32), (12, 3, 16, 16), (20, 512)]
    loss.backward()
    assert set(metrics) == {"feature_std", "prototypes_used"}
    assert 0 < metrics["prototypes_used"] <= 1


def test_the_order_of_views_within_groups_changes_no_row() -> None:
    """In evaluation mode batch norm does not mix rows: grouped or not, the loss is the same."""
    method, batch = _swav()
    method.eval()
    whole = method(batch)[0]
    method._groups = 2
    torch.testing.assert_close(method(batch)[0], whole)


def test_prototypes_are_normalised_and_frozen_at_first() -> None:
    method, batch = _swav()
    for step, frozen in ((0, True), (1, True), (2, False)):
        progress = Progress(step, 10, 0)
        with torch.no_grad():
            method.prototypes.weight.mul_(3)
        method.begin_step(progress)
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12))
        method.zero_grad()
        method(batch)[0].backward()
        method.before_update(progress)
        assert (method.prototypes.weight.grad is None) == frozen


def test_the_queue_fills_from_its_epoch_and_then_takes_part() -> None:
    method, batch = _swav(queue=8, queue_from_epoch=1)
    used = []
    codes = method._codes

    def watch(scores: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        used.append(method._queued >= 8)
        return codes(scores, embeddings)

    method._codes = watch
    kept = []
    for step, epoch in enumerate((0, 1, 1, 1)):
        method.begin_step(Progress(step, 10, epoch))
        method(batch)
        kept.append(method.queue.clone())
    assert used == [False, False, False, True]
    assert kept[0].abs().sum() == 0
    assert (kept[1][:, :4].norm(dim=2) - 1).abs().max() < 1e-5
    assert kept[1][:, 4:].abs().sum() == 0
    # Full: the oldest half is replaced, the other stays.
    assert torch.equal(kept[3][:, 4:], kept[2][:, 4:])
    other, _ = _swav(queue=8, queue_from_epoch=1)
    other.load_state_dict(method.state_dict())
    assert other._queued == 12
    assert torch.equal(other.queue, method.queue)


def test_codes_with_a_queue_are_those_of_queue_and_batch_together() -> None:
    method, _ = _swav(queue=8)
    rows = F.normalize(torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(4)), dim=2)
    method.queue.copy_(rows[:, 4:])
    method._queued = 8
    scores = method.prototypes(rows)
    expected = torch.stack([sinkhorn(view)[:4] for view in scores])
    torch.testing.assert_close(method._codes(scores[:, :4], rows[:, :4]), expected)


def test_what_swav_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="accumulate=2: swav makes codes"):
        SwavOptions().check(64, 2)
    with pytest.raises(ValueError, match="method.queue=100"):
        SwavOptions(queue=100).check(64, 1)
    with pytest.raises(UserError, match="needs a global view, and another"):
        SwavOptions().build(Setting("resnet18", 4, ("global",)))
    with pytest.raises(UserError, match="needs a global view"):
        SwavOptions().build(Setting("resnet18", 4, ("local_0", "local_1")))
    with pytest.raises(UserError, match="prototypes"):
        validate(SwavOptions, {"prototypes": 1}, "recipe")
