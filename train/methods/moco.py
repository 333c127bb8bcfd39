"""MoCo-v2 (Chen et al. 2020) with the matched negative of BG_Swaps (Ryali, Schwab, Morcos 2021).

A step, as in the original: query forward; momentum update of the key encoder (parameters only, never
batch-norm statistics); keys forward, shuffled between batch-norm groups and ranks; logits over the positive,
the queue and the matched negative; the positives enter the queue.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from dali_bgaug.config import Options
from train.distributed import gather_rows, take_rows, world_size
from train.networks import FEATURES, backbone, group_batch_norm, set_groups


class MocoOptions(Options):
    """MoCo-v2's own parameters."""

    name: Literal["moco_v2"] = "moco_v2"
    dim: int = Field(default=128, ge=1)
    """Size of an embedding."""
    queue: int = Field(default=65536, ge=1)
    """Keys remembered; divisible by the global batch."""
    momentum: float = Field(default=0.999, ge=0, lt=1)
    """Of the key encoder."""
    temperature: float = Field(default=0.2, gt=0)
    bn_group: int = Field(default=32, ge=2)
    """Queries that share batch-norm statistics (keys: with BG_Swaps twice as many views, their negatives
    among them). A rank with more is split; one with fewer uses what it has."""


def contrastive_logits(
    query: torch.Tensor,
    positive: torch.Tensor,
    queue: torch.Tensor,
    negative: torch.Tensor | None = None,
    temperature: float = 0.2,
) -> torch.Tensor:
    """Similarities over temperature, the positive first: MoCo's equation 1.

    Args:
        query, positive: L2-normalised embeddings [N, dim].
        queue: L2-normalised keys [dim, K].
        negative: further negatives of each query, L2-normalised [N, dim] or [N, n, dim]: the last columns.
        temperature: divides all.

    Returns:
        [N, 1 + K], or [N, 1 + K + n] with `negative`; the right class is 0.
    """
    with torch.autocast(
        query.device.type, enabled=False
    ):  # in the precision of the embeddings, not autocast's
        columns = [(query * positive).sum(dim=1, keepdim=True), query @ queue]
        if negative is not None:
            columns.append((query[:, None] * negative.reshape(len(query), -1, query.shape[1])).sum(dim=2))
        return torch.cat(columns, dim=1) / temperature


class Moco(nn.Module):
    """Query and key encoders and the queue."""

    def __init__(self, options: MocoOptions, network: str, seed: int) -> None:
        """network: the backbone's name; seed: of the shuffling between ranks, the same on every rank."""
        super().__init__()
        self.options = options
        self.query_encoder, self.key_encoder = (self._encoder(network) for _ in range(2))
        self.key_encoder.load_state_dict(self.query_encoder.state_dict())
        self.key_encoder.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(options.dim, options.queue), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self._shuffler = torch.Generator().manual_seed(seed)

    def _encoder(self, network: str) -> nn.Module:
        features = FEATURES[network]
        encoder = backbone(network)
        encoder.fc = nn.Sequential(
            nn.Linear(features, features), nn.ReLU(inplace=True), nn.Linear(features, self.options.dim)
        )
        group_batch_norm(encoder)
        return encoder

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """One step on a rank's batch.

        batch: `query`, `key` and, with BG_Swaps, `negative` (or `negative_0`, …): [N, 3, H, W]. Returns the
        mean loss and metrics: `accuracy` (the positive has the largest logit) and `feature_std` (of the
        normalised queries, over the batch, times sqrt(dim): about 1 when embeddings spread over the sphere, 0
        when they collapsed).
        """
        count = len(batch["query"])
        groups = max(1, count // self.options.bn_group)
        for encoder in (self.query_encoder, self.key_encoder):
            set_groups(encoder, groups)
        query = F.normalize(self.query_encoder(batch["query"]).float(), dim=1)
        with torch.no_grad():
            self._update_key_encoder()
            negatives = [view for name, view in batch.items() if name.startswith("negative")]
            encoded = self._encode_shuffled(torch.cat([batch["key"], *negatives]), groups)
            positive, *rest = encoded.split(count)
        negative = torch.stack(rest, dim=1) if rest else None
        # The queue changes below, and the backward pass needs it as it was.
        logits = contrastive_logits(query, positive, self.queue.clone(), negative, self.options.temperature)
        loss = F.cross_entropy(logits, torch.zeros(count, dtype=torch.long, device=logits.device))
        self._enqueue(positive)
        with torch.no_grad():
            metrics = {
                "accuracy": (logits.argmax(dim=1) == 0).float().mean(),
                "feature_std": query.std(dim=0).mean() * self.options.dim**0.5,
            }
        return loss, metrics

    def _update_key_encoder(self) -> None:
        pairs = (list(encoder.parameters()) for encoder in (self.key_encoder, self.query_encoder))
        keys, queries = pairs
        torch._foreach_lerp_(keys, [query.detach() for query in queries], 1 - self.options.momentum)

    def _encode_shuffled(self, views: torch.Tensor, groups: int) -> torch.Tensor:
        """Embed with other company than the queries had: statistics of a common group would give the positive
        away."""
        if groups == 1 and world_size() == 1:
            return F.normalize(self.key_encoder(views).float(), dim=1)
        order = torch.randperm(len(views) * world_size(), generator=self._shuffler)
        encoded = F.normalize(self.key_encoder(take_rows(views, order)).float(), dim=1)
        return take_rows(encoded, torch.argsort(order))

    @torch.no_grad()
    def _enqueue(self, keys: torch.Tensor) -> None:
        """Replace the oldest keys of the queue by all ranks' positives."""
        everyone = gather_rows(keys)
        places = (self.queue_ptr + torch.arange(len(everyone), device=keys.device)) % self.options.queue
        self.queue.index_copy_(1, places, everyone.T)
        self.queue_ptr.add_(len(everyone)).remainder_(self.options.queue)

    def get_extra_state(self) -> dict[str, Any]:
        """The shuffling generator, for `state_dict`."""
        return {"shuffler": self._shuffler.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self._shuffler.set_state(state["shuffler"].cpu())
