"""BYOL against numbers recorded from DeepMind's code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from train.method import Progress, Setting
from train.methods.byol import Byol, ByolOptions, regression_loss

REFERENCE = Path(__file__).parents[1] / "data" / "byol.npz"


def test_loss_and_gradient_are_the_originals() -> None:
    reference = {name: torch.from_numpy(np.asarray(value)) for name, value in np.load(REFERENCE).items()}
    first, second = (reference[f"pred_view{view}"].clone().requires_grad_() for view in (1, 2))
    one = regression_loss(first, reference["targ_proj_view2"])
    two = regression_loss(second, reference["targ_proj_view1"])
    torch.testing.assert_close(one, reference["per_sample_12"], atol=1e-5, rtol=0)
    torch.testing.assert_close(two, reference["per_sample_21"], atol=1e-5, rtol=0)
    loss = (one + two).mean()
    torch.testing.assert_close(loss, reference["loss"], atol=1e-5, rtol=0)
    loss.backward()
    torch.testing.assert_close(first.grad, reference["grad_pred_view1"], atol=1e-5, rtol=0)
    torch.testing.assert_close(second.grad, reference["grad_pred_view2"], atol=1e-5, rtol=0)


def _byol() -> tuple[Byol, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    method = ByolOptions(hidden=32, dim=16, momentum=0.5).build(Setting("resnet18", 4))
    return method.train(), {view: torch.randn(4, 3, 32, 32) for view in ("view_1", "view_2")}


def test_loss_is_a_sum_of_two_directions() -> None:
    vectors = torch.eye(3)
    assert regression_loss(vectors, vectors).tolist() == [0, 0, 0]
    assert regression_loss(vectors, -5 * vectors).tolist() == [4, 4, 4]
    method, batch = _byol()
    loss, metrics = method(batch)
    assert 0 < loss < 8
    assert metrics["feature_std"] > 0


def test_the_target_follows_and_is_not_trained() -> None:
    method, batch = _byol()
    with torch.no_grad():
        for parameter in method.online.parameters():
            parameter.add_(1.0)
    before = {name: tensor.clone() for name, tensor in method.target.state_dict().items()}
    method(batch)[0].backward()
    after = method.target.state_dict()
    # In train mode, on statistics of its own: moved by the forward pass, not by the online network's.
    mean = "backbone.bn1.running_mean"
    assert not torch.equal(after[mean], before[mean])
    assert not torch.equal(after[mean], method.online.state_dict()[mean])
    passed = {name: tensor.clone() for name, tensor in after.items()}
    method.after_update(Progress(step=0, steps=10, epoch=0))
    for name, parameter in method.target.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.5, atol=1e-5, rtol=1e-5)
        assert parameter.grad is None
    assert torch.equal(method.target.state_dict()[mean], passed[mean])
    assert all(parameter.grad is not None for parameter in method.online.parameters())
    assert all(parameter.grad is not None for parameter in method.predictor.parameters())


def test_heads_are_the_papers() -> None:
    method = ByolOptions().build(Setting("resnet18", 4))
    for head, inputs in ((method.online["projector"], 512), (method.predictor, 256)):
        first, norm, _, last = head
        assert (first.in_features, first.out_features, first.bias is None) == (inputs, 4096, False)
        assert (norm.momentum, norm.eps) == (0.1, 1e-5)
        assert (last.in_features, last.out_features, last.bias) == (4096, 256, None)
    assert method.backbone.layer4[1].bn2.weight.min() == 1


def test_after_the_last_step_the_target_stands() -> None:
    method, _ = _byol()
    with torch.no_grad():
        method.predictor[0].weight.add_(1)
        method.online["backbone"].conv1.weight.add_(1)
    before = method.target["backbone"].conv1.weight.clone()
    method.after_update(Progress(step=10, steps=10, epoch=0))
    assert torch.equal(method.target["backbone"].conv1.weight, before)
    assert method.options.momentum == pytest.approx(0.5)
