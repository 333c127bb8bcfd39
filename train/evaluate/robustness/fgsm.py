"""The fast gradient sign method (Goodfellow et al. 2015): photos changed by a step that raises their loss.

    x' = clip(x + epsilon * sign(d loss / d x), 0, 1)      x: pixels in [0, 1], as the network is shown them

One step, without a random start, against the true labels (the paper's section 5.3). Photos that were wrong
before count as wrong.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dali_bgaug.views.options import NormaliseOptions
from train.evaluate.robustness.protocol import UNREAD

Network = Callable[[torch.Tensor], torch.Tensor]


class Attacked(NamedTuple):
    """Images after the attack."""

    images: torch.Tensor
    """Normalised, float32 [n, 3, size, size]."""
    logits_before: torch.Tensor
    """Of the images before: float32 [n, classes]; the gradient needs them anyway."""


def attack(
    network: Network,
    images: torch.Tensor,
    labels: torch.Tensor,
    normalise: NormaliseOptions,
    epsilon: float,
) -> Attacked:
    """Images after the step.

    The gradient is that of the summed cross-entropy, in float32 also under autocast: in half precision a
    softmax near 1 has none, and nothing would be attacked. Parameters get no gradients.

    Args:
        network: normalised images -> logits [n, classes], in evaluation mode; its weights are float32.
        images: normalised, [n, 3, size, size]; after cropping, so every pixel is one that the network sees.
        labels: true classes, columns of the logits, int64 [n].
        normalise: of the images.
        epsilon: most that a pixel changes by, in grey levels of 255.
    """
    rows = torch.tensor([normalise.mean, normalise.std], dtype=torch.float32, device=images.device)
    mean, std = rows[..., None, None]
    pixels = (images.float() * std + mean).clamp(0, 1).requires_grad_()
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = network((pixels - mean) / std)
        [gradient] = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), pixels)
    attacked = (pixels.detach() + epsilon / 255 * gradient.sign()).clamp(0, 1)
    return Attacked((attacked - mean) / std, logits.detach())


class FgsmScore:
    """Accuracy on photos as they are and after the attack: a `protocol.Score`."""

    criteria = ("clean", "attacked")

    def __init__(self, labels: np.ndarray, normalise: NormaliseOptions, epsilon: float = 8.0) -> None:
        """How photos are attacked.

        Args:
            labels: true classes, columns of the logits, int64 [photos].
            normalise: how the images that `judge` gets are normalised.
            epsilon: most that a pixel changes by, in grey levels of 255.
        """
        self.labels, self.normalise, self.epsilon = torch.from_numpy(labels), normalise, epsilon

    def judge(self, network: Network, images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Whether the photos are right, before and after: see `protocol.Score`."""
        self.labels = self.labels.to(images.device)
        labels = self.labels[numbers]
        attacked = attack(network, images, labels, self.normalise, self.epsilon)
        with torch.no_grad():
            logits = attacked.logits_before, network(attacked.images)
        return torch.stack([each.argmax(dim=1) == labels for each in logits], dim=1).long()

    def summarise(self, outcomes: np.ndarray) -> dict[str, Any]:
        """`value`, the accuracy after the attack, beside `clean`: see `protocol.Score`."""
        read = outcomes[outcomes[:, 0] != UNREAD]
        clean, attacked = (round(float(share), 4) for share in read.mean(axis=0))
        metric = f"top-1 accuracy after one step of FGSM, epsilon {self.epsilon:g} of 255, of all photos"
        return {
            **{"value": attacked, "metric": metric, "photos": len(read)},
            **{"clean": clean, "epsilon": self.epsilon},
        }
