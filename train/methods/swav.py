"""SwAV (Caron et al. 2020): each view predicts the cluster assignment of another, over trainable prototypes.

Assignments ("codes") are made of the global views of all ranks by Sinkhorn's algorithm, so that all
prototypes are used equally. Multi-crop: one pass of the backbone a resolution, one of the head over all
views.
"""

import math
from itertools import groupby
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from dali_bgaug.errors import UserError
from train.batch_norm import group_batch_norm, interleave, separate
from train.distributed import all_gather_rows, rank, world_size
from train.method import Batch, Method, MethodOptions, Metrics, Progress, Setting, feature_std
from train.networks import FEATURES, build_backbone, mlp, precise


class SwavOptions(MethodOptions):
    """SwAV's own parameters."""

    pipeline: ClassVar[str] = "swav"

    name: Literal["swav"] = "swav"
    hidden: int = Field(default=2048, ge=1, le=2**16)
    """Hidden units of the head."""
    dim: int = Field(default=128, ge=1, le=2**16)
    """Size of an embedding."""
    prototypes: int = Field(default=3000, ge=2, le=2**20)
    temperature: float = Field(default=0.1, gt=0)
    epsilon: float = Field(default=0.05, gt=0)
    """Entropy of Sinkhorn's codes: smaller gives sharper ones."""
    sinkhorn_iterations: int = Field(default=3, ge=1, le=1000)
    freeze_prototypes_steps: int = Field(default=313, ge=0)
    """Steps at the start in which prototypes are not trained (313: the first epoch at a batch of 4096)."""
    queue: int = Field(default=0, ge=0, le=2**24)
    """Earlier embeddings, of all ranks, that codes are made with besides the batch's (small batches)."""
    queue_from_epoch: int = Field(default=15, ge=0)
    """The queue is filled from this epoch on, and used once it is full."""

    def build(self, setting: Setting) -> "Swav":
        """Backbone, head, prototypes and queue."""
        if len(setting.views) < 2 or not setting.views[0].startswith("global"):
            raise UserError(
                f"data.views: swav needs a global view, and another to predict it from; got {setting.views}"
            )
        return Swav(self, setting)

    def check(self, batch_size: int, accumulate: int) -> None:
        """Codes need the whole batch; the queue must hold whole batches."""
        if accumulate > 1:
            raise ValueError(
                f"accumulate={accumulate}: swav makes codes of the whole batch at once; take a smaller "
                "data.batch_size, with method.queue for small ones"
            )
        if self.queue % batch_size:
            raise ValueError(
                f"method.queue={self.queue}: must be a multiple of the batch, data.batch_size={batch_size}"
            )


@torch.no_grad()
def sinkhorn(scores: torch.Tensor, epsilon: float = 0.05, iterations: int = 3) -> torch.Tensor:
    """Codes: assignments that are close to the scores and use all prototypes equally.

    Iterates over the samples of all ranks (every rank with as many), in float32 and in logarithms, so that
    scores of any size neither overflow nor vanish. Source: Cuturi 2013; SwAV's `distributed_sinkhorn`.

    Args:
        scores: similarities of samples and prototypes [B, K].
        epsilon: entropy of the codes.
        iterations: of scaling the prototypes' sums, then the samples'.

    Returns:
        float32 [B, K]; rows sum to 1.
    """
    log_codes = precise(scores) / epsilon
    for _ in range(iterations):
        per_prototype = all_gather_rows(log_codes.logsumexp(dim=0, keepdim=True)).logsumexp(dim=0)
        log_codes = log_codes - per_prototype
        log_codes = log_codes - log_codes.logsumexp(dim=1, keepdim=True)
    return log_codes.exp()


def swapped_prediction_loss(
    scores: torch.Tensor, codes: torch.Tensor, temperature: float = 0.1
) -> torch.Tensor:
    """Cross-entropy of every view's prediction with the codes of every other view that has codes.

    Args:
        scores: similarities with the prototypes [views, N, K], the views with codes first.
        codes: [global views, N, K], rows sum to 1.
        temperature: divides the scores.

    Returns:
        The mean over samples, over the other views, and over the views with codes.
    """
    log_predictions = F.log_softmax(precise(scores) / temperature, dim=2)
    # [global, views]: the mean cross-entropy of code and prediction.
    entropies = -torch.einsum("gnk,vnk->gv", codes, log_predictions) / scores.shape[1]
    own = entropies.diagonal().sum()  # a view does not predict its own code
    return (entropies.sum() - own) / (len(codes) * (len(scores) - 1))


class Swav(Method):
    """Backbone, projection head, prototypes, and the queue of earlier embeddings."""

    def __init__(self, options: SwavOptions, setting: Setting) -> None:
        super().__init__()
        self.options = options
        self.network = build_backbone(setting.backbone)
        self.head = mlp(FEATURES[setting.backbone], options.hidden, options.dim)
        self.prototypes = nn.Linear(options.dim, options.prototypes, bias=False)
        grouping = options.grouping(setting)
        for network in (self.network, self.head):
            group_batch_norm(network, grouping, setting.device)
        self._views = setting.views  # the loader names global views first
        self._codes_of = sum(name.startswith("global") for name in setting.views)
        self._groups, self._filling, self._queued = grouping.groups, False, 0
        self.register_buffer("queue", torch.zeros(self._codes_of, options.queue, options.dim))
        self.chance_loss = math.log(options.prototypes)

    @torch.no_grad()
    def begin_step(self, progress: Progress) -> None:
        """Prototypes are kept at length 1."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        self._filling = self.options.queue > 0 and progress.epoch >= self.options.queue_from_epoch

    def forward(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """batch: `global_0`, …, `local_0`, …: [N, 3, H, W], each kind of one size.

        Metrics: `feature_std` (of the first view's embeddings) and `prototypes_used` (the share of
        prototypes that is the best of some sample of this rank).
        """
        sizes = groupby((batch[name] for name in self._views), key=lambda view: view.shape[-1])
        passes = [list(views) for _, views in sizes]
        # Group by group and, in each, resolution by resolution: what a device with such a group would see.
        features = [
            separate(self.network(interleave(views, self._groups)), len(views), self._groups)
            for views in passes
        ]
        rows = interleave([view for views in features for view in views], self._groups)
        embeddings = separate(self.head(rows), len(self._views), self._groups)
        with torch.autocast(embeddings.device.type, enabled=False):  # codes need more than bfloat16's 8 bits
            embeddings = F.normalize(precise(embeddings), dim=2)
            scores = self.prototypes(embeddings)
            codes = self._codes(scores[: self._codes_of], embeddings[: self._codes_of])
            loss = swapped_prediction_loss(scores, codes, self.options.temperature)
        used = torch.zeros(codes.shape[2], device=codes.device).index_fill_(0, codes[0].argmax(dim=1), 1)
        return loss, {"feature_std": feature_std(embeddings[0].detach()), "prototypes_used": used.mean()}

    @torch.no_grad()
    def _codes(self, scores: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Codes of the global views [views, N, K], with this rank's part of the queue once that is full."""
        options, count = self.options, scores.shape[1]
        if 0 < options.queue <= self._queued:
            share = options.queue // world_size()
            earlier = self.queue[:, rank() * share : (rank() + 1) * share]
            scores = torch.cat([scores, self.prototypes(earlier)], dim=1)
        codes = torch.stack([sinkhorn(view, options.epsilon, options.sinkhorn_iterations) for view in scores])
        if self._filling:
            self._enqueue(embeddings)
        return codes[:, :count]

    def _enqueue(self, embeddings: torch.Tensor) -> None:
        """All ranks' embeddings of the global views [views, N, dim] replace the oldest."""
        everyone = torch.stack([all_gather_rows(view) for view in embeddings])
        start = self._queued % self.options.queue
        self.queue[:, start : start + everyone.shape[1]] = everyone
        self._queued += everyone.shape[1]

    def get_extra_state(self) -> dict[str, Any]:
        """The count of queued embeddings, for `state_dict`."""
        return {"queued": self._queued}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self._queued = state["queued"]

    def before_update(self, progress: Progress) -> None:
        """Without a gradient the optimizer leaves the prototypes alone, momentum and decay included."""
        if progress.step < self.options.freeze_prototypes_steps:
            self.prototypes.weight.grad = None
