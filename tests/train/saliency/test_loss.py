"""The F loss and soft thresholding, against values computed by hand."""

import pytest
import torch

from train.saliency.loss import f_loss, soft_threshold


def test_soft_thresholding() -> None:
    """From .5 on a label is object; what is surer than its label on its side is settled, the rest is not."""
    label = torch.tensor([0.8, 0.8, 0.8, 0.2, 0.2, 0.2, 0.5])
    probability = torch.tensor([0.9, 0.7, 0.1, 0.1, 0.3, 0.9, 0.4], requires_grad=True)
    thresholded, truth = soft_threshold(probability, label, 0.5)
    assert thresholded.tolist() == pytest.approx([1, 0.7, 0.1, 0, 0.3, 0.9, 0.4])
    assert truth.tolist() == [1, 1, 1, 0, 0, 0, 0]
    thresholded.sum().backward()
    assert probability.grad.tolist() == [0, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize(("beta2", "expected"), [(1.0, 0.3333), (4.0, 0.3750), (0.3, 0.2909)])
def test_f_loss(beta2: float, expected: float) -> None:
    """Precision 1.5 / 2, recall 1.5 / 2.5: F is .6667, .6250 and .7091."""
    probability = torch.tensor([[[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]]])
    truth = torch.tensor([[[1.0, 1.0, 0.5], [0.0, 0.0, 0.0]]])
    assert f_loss(probability, truth, beta2).tolist() == pytest.approx([expected], abs=1e-4)


def test_f_of_nothing() -> None:
    """No object and none found, or all found: no gradient that is not a number."""
    for value in (0.0, 1.0):
        probability = torch.full((1, 4, 4), value, requires_grad=True)
        loss = f_loss(probability, torch.zeros(1, 4, 4), 1.0).sum()
        loss.backward()
        assert loss.item() == pytest.approx(1)
        assert probability.grad.isfinite().all()
