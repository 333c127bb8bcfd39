"""F loss with soft thresholding, by which DeepUSPS learns from maps that are often wrong."""

import torch

EPSILON = 1e-5


def soft_threshold(
    probability: torch.Tensor, label: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft thresholding: a prediction need not be surer than its soft label, only on its side.

    probability, label: of the object, in [0, 1], of one shape. Returns the probability, 1 or 0 and without
    gradient where it is beyond the label on the label's side, and the label as 0 and 1.
    """
    inside = label > threshold
    settled = torch.where(inside, probability > label, (label < threshold) & (probability < label))
    return torch.where(settled, inside.to(probability.dtype), probability), inside.to(probability.dtype)


def f_loss(probability: torch.Tensor, truth: torch.Tensor, beta2: float) -> torch.Tensor:
    """1 - F, of every photo: [N, H, W] -> [N]. beta2: how much recall counts."""
    hits = (probability * truth).sum((1, 2))
    precision = hits / (probability.sum((1, 2)) + EPSILON)
    recall = hits / (truth.sum((1, 2)) + EPSILON)
    return 1 - (1 + beta2) * precision * recall / (beta2 * precision + recall + EPSILON)
