"""MoCo against numbers recorded from the original implementation, and the pieces around it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from train.batch_norm import GroupedBatchNorm, Grouping, group_batch_norm, interleave, separate
from train.method import Progress, Setting
from train.methods.moco import Moco, MocoOptions, contrastive_logits

PROGRESS = Progress(step=0, steps=10, epoch=0)
REFERENCE = Path(__file__).parents[1] / "data" / "moco_infonce.npz"


def _reference() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(REFERENCE).items()}


@pytest.mark.parametrize("extra", [False, True])
def test_logits_loss_and_gradient_are_the_originals(extra: bool) -> None:
    reference = _reference()
    suffix = "_extra" if extra else ""
    raw = reference["q_raw"].clone().requires_grad_()
    query, key, negative = (F.normalize(x, dim=1) for x in (raw, reference["k_raw"], reference["extra_raw"]))
    queue = F.normalize(reference["queue"], dim=0)
    assert torch.allclose(queue, reference["queue"], atol=1e-5)
    logits = contrastive_logits(query, key, queue, negative if extra else None, float(reference["T"]))
    assert logits.shape == ((4, 18) if extra else (4, 17))
    assert torch.allclose(logits, reference[f"logits{suffix}"], atol=1e-5)
    loss = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    assert torch.allclose(loss, reference[f"loss{suffix}"], atol=1e-5)
    loss.backward()
    assert torch.allclose(raw.grad, reference[f"grad_q_raw{suffix}"], atol=1e-5)


def test_logits_are_float32_under_autocast() -> None:
    moco, batch = _moco(), _batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = moco(batch)
    assert loss.dtype == torch.float32
    similarity = F.normalize(torch.randn(4, 8), dim=1)
    queue = F.normalize(torch.randn(8, 16), dim=0)
    expected = contrastive_logits(similarity, similarity, queue)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrastive_logits(similarity, similarity, queue), expected)


def _moco(queue: int = 16, dim: int = 8, photos: int = 8, **options: object) -> Moco:
    torch.manual_seed(0)
    values = {"queue": queue, "dim": dim, "bn_group": 4, **options}
    return MocoOptions(**values).build(Setting("resnet18", photos)).train()


def _enqueue(moco: Moco, *keys: torch.Tensor) -> None:
    moco._new_keys = list(keys)
    moco.after_update(PROGRESS)


def test_queue_after_a_step_is_the_originals() -> None:
    reference = _reference()
    moco = _moco()
    moco.queue.copy_(reference["queue"])
    _enqueue(moco, F.normalize(reference["k_raw"], dim=1))
    assert torch.allclose(moco.queue, reference["queue_after"], atol=1e-5)
    assert moco.queue_ptr.tolist() == reference["ptr_after"].tolist()


def test_the_queue_wraps_around() -> None:
    moco = _moco(queue=8)
    batches = [torch.full((4, 8), float(number)) for number in (1, 2, 3)]
    _enqueue(moco, *batches)
    assert moco.queue[0].tolist() == [3, 3, 3, 3, 2, 2, 2, 2]
    assert moco.queue_ptr.tolist() == [4]


def _batch(count: int = 8, negative: bool = True) -> dict[str, torch.Tensor]:
    names = ("query", "key", "negative") if negative else ("query", "key")
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(count, 3, 32, 32, generator=generator) for name in names}


def test_a_step_moves_parameters_but_not_statistics_of_the_key_encoder() -> None:
    moco = _moco(momentum=0.5)
    with torch.no_grad():
        for parameter in moco.query_encoder.parameters():
            parameter.add_(1.0)
    before = {name: tensor.clone() for name, tensor in moco.key_encoder.state_dict().items()}
    running = moco.query_encoder.backbone.bn1.running_mean.clone()
    moco.begin_step(PROGRESS)
    loss, metrics = moco(_batch())
    loss.backward()
    for name, parameter in moco.key_encoder.named_parameters():
        assert torch.allclose(parameter, before[name] + 0.5, atol=1e-5), name
        assert parameter.grad is None
    # Its statistics come from its own forward pass.
    assert not torch.equal(moco.key_encoder.backbone.bn1.running_mean, before["backbone.bn1.running_mean"])
    assert not torch.equal(
        moco.key_encoder.backbone.bn1.running_mean, moco.query_encoder.backbone.bn1.running_mean
    )
    assert not torch.equal(running, moco.query_encoder.backbone.bn1.running_mean)
    assert 0 <= metrics["accuracy"] <= 1
    assert all(parameter.grad is not None for parameter in moco.query_encoder.parameters())


def test_only_positives_enter_the_queue() -> None:
    moco = _moco()
    before = moco.queue.clone()
    moco(_batch(4, negative=True))
    assert torch.equal(moco.queue, before)  # the backward pass needs it as it was
    moco.after_update(PROGRESS)
    assert moco.queue_ptr.tolist() == [4]
    assert torch.equal(moco.queue[:, 4:], before[:, 4:])
    assert torch.allclose(moco.queue[:, :4].norm(dim=0), torch.ones(4), atol=1e-5)


def test_keys_come_back_in_their_order() -> None:
    """Shuffling changes a key's batch-norm company, not its place: without batch norm nothing may change."""
    moco = _moco(bn_group=2)
    moco.key_encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8))
    views = [torch.randn(8, 3, 32, 32) for _ in range(2)]
    for found, view in zip(moco._encode_keys(views), views):
        assert torch.allclose(found, F.normalize(moco.key_encoder(view), dim=1), atol=1e-6)


def test_views_of_a_group_of_photos_lie_together() -> None:
    views = [torch.tensor([0, 1, 2, 3]), torch.tensor([10, 11, 12, 13])]
    rows = interleave(views, 2)
    assert rows.tolist() == [0, 1, 10, 11, 2, 3, 12, 13]
    assert separate(rows, 2, 2).tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert interleave(views, 1).tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert separate(interleave(views, 1), 2, 1).tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_grouped_batch_norm_is_batch_norm_of_each_group() -> None:
    x = torch.randn(8, 5, 4, 4)
    grouped, plain = nn.Sequential(nn.BatchNorm2d(5)), nn.BatchNorm2d(5)
    group_batch_norm(grouped, Grouping(groups=2), "cpu")
    assert isinstance(grouped[0], GroupedBatchNorm)
    found = grouped(x)
    first = plain(x[:4])
    assert torch.allclose(found[:4], first, atol=1e-6)
    assert torch.allclose(grouped[0].running_mean, plain.running_mean)
    assert grouped[0].num_batches_tracked == 1
    assert torch.allclose(found[4:], plain(x[4:]), atol=1e-6)
    grouped.eval(), plain.eval()
    plain.load_state_dict(grouped[0].state_dict())
    assert torch.allclose(grouped(x), plain(x))


def test_state_dict_holds_the_shuffling(tmp_path: Path) -> None:
    moco, other = _moco(bn_group=2), _moco(bn_group=2)
    moco(_batch())
    torch.save(moco.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(moco(_batch())[0], other(_batch())[0])
