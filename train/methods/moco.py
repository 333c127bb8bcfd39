"""MoCo-v2 (Chen et al. 2020) with the matched negative of BG_Swaps (Ryali, Schwab, Morcos 2021).

A step, as in the reference implementation: momentum update of the key encoder (parameters only, never
batch-norm statistics); query forward; keys forward, shuffled between batch-norm groups and ranks; logits over
the positive, the queue and the matched negative; after the update the positives enter the queue. (There the
key encoder moves after the query's forward pass, which does not touch it.)
"""

import warnings
from collections import OrderedDict
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from dali_bgaug.errors import UserError
from train.batch_norm import group_batch_norm, interleave, separate
from train.distributed import all_gather_rows, permute_rows, world_size
from train.method import Batch, Method, MethodOptions, Metrics, Progress, Setting, classification, ema_update
from train.networks import FEATURES, build_backbone, mlp, precise


class MocoOptions(MethodOptions):
    """MoCo-v2's own parameters."""

    pipeline: ClassVar[str] = "moco_v2"
    synchronise: ClassVar[bool] = False  # it would give the positive away; keys are shuffled instead

    name: Literal["moco_v2"] = "moco_v2"
    dim: int = Field(default=128, ge=1, le=2**16)
    """Size of an embedding."""
    queue: int = Field(default=65536, ge=1, le=2**24)
    """Keys remembered; divisible by the global batch."""
    momentum: float = Field(default=0.999, ge=0, lt=1)
    """Momentum of the key encoder."""
    temperature: float = Field(default=0.2, gt=0)
    bn_group: int | None = Field(default=32, ge=2)
    """Queries that share batch-norm statistics (keys: with BG_Swaps twice as many views, their negatives
    among them). A rank with more is split; one with fewer uses what it has."""

    def build(self, setting: Setting) -> "Moco":
        """Query and key encoders, equal at first, and a random queue."""
        return Moco(self, setting)

    def check(self, batch_size: int, accumulate: int) -> None:
        """The queue must hold whole batches."""
        if self.queue % batch_size:
            raise ValueError(
                f"method.queue={self.queue}: must be a multiple of the batch, data.batch_size={batch_size}"
            )


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
    with torch.autocast(query.device.type, enabled=False):  # in the embeddings' precision, not autocast's
        columns = [(query * positive).sum(dim=1, keepdim=True), query @ queue]
        if negative is not None:
            columns.append((query[:, None] * negative.reshape(len(query), -1, query.shape[1])).sum(dim=2))
        return torch.cat(columns, dim=1) / temperature


class Moco(Method):
    """Query and key encoders and the queue."""

    def __init__(self, options: MocoOptions, setting: Setting) -> None:
        super().__init__()
        self.options = options
        self.query_encoder, self.key_encoder = (self._encoder(setting) for _ in range(2))
        self.key_encoder.load_state_dict(self.query_encoder.state_dict())
        self.key_encoder.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(options.dim, options.queue), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self._groups = options.grouping(setting).groups
        if self._groups == 1 and world_size() == 1:
            self._say_unshuffled(setting)
        self._new_keys: list[torch.Tensor] = []
        self._shuffler = torch.Generator().manual_seed(setting.seed)  # the same on every rank

    def _say_unshuffled(self, setting: Setting) -> None:
        problem = (
            f"method.bn_group={self.options.bn_group}: keys cannot be shuffled among the {setting.photos} "
            "photos of one pass, which share batch statistics with their queries: these give positives away"
        )
        if setting.accumulate > 1:
            raise UserError(f"accumulate={setting.accumulate}, {problem}; make either smaller")
        warnings.warn(f"{problem}; make it smaller than the batch of a rank", stacklevel=2)

    def _encoder(self, setting: Setting) -> nn.Module:
        features = FEATURES[setting.backbone]
        head = mlp(features, features, self.options.dim, norm=False)
        encoder = nn.Sequential(OrderedDict(backbone=build_backbone(setting.backbone), head=head))
        return group_batch_norm(encoder, self.options.grouping(setting), setting.device)

    @property
    def backbone(self) -> nn.Module:
        """The query encoder's."""
        return self.query_encoder.backbone

    def networks(self) -> list[nn.Module]:
        """Both encoders' backbones."""
        return [self.query_encoder.backbone, self.key_encoder.backbone]

    def begin_step(self, progress: Progress) -> None:
        """Momentum update of the key encoder."""
        ema_update(self.key_encoder, self.query_encoder, self.options.momentum)
        self._new_keys = []

    def forward(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """batch: `query`, `key` and, with BG_Swaps, `negative_0`, …: [N, 3, H, W].

        Metrics: `accuracy` (the positive has the largest logit) and `feature_std` (of the queries).
        """
        query = F.normalize(precise(self.query_encoder(batch["query"])), dim=1)
        with torch.no_grad():
            negatives = [view for name, view in batch.items() if name.startswith("negative")]
            positive, *rest = self._encode_keys([batch["key"], *negatives])
            self._new_keys.append(positive)
        negative = torch.stack(rest, dim=1) if rest else None
        logits = contrastive_logits(query, positive, self.queue, negative, self.options.temperature)
        labels = torch.zeros(len(query), dtype=torch.long, device=logits.device)
        return classification(logits, labels, query)

    def _encode_keys(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        """Key embeddings by other batch-norm groups than the queries': statistics in common would give the
        positive away. They lie as on a rank a group, so that the number of ranks changes nothing."""
        if self._groups == 1 and world_size() == 1:
            return list(F.normalize(precise(self.key_encoder(torch.cat(views))), dim=1).chunk(len(views)))
        rows = interleave(views, self._groups)
        order = torch.randperm(len(rows) * world_size(), generator=self._shuffler)
        encoded = F.normalize(precise(self.key_encoder(permute_rows(rows, order))), dim=1)
        return list(separate(permute_rows(encoded, torch.argsort(order)), len(views), self._groups))

    @torch.no_grad()
    def after_update(self, progress: Progress) -> None:
        """All ranks' positives of this step replace the oldest keys of the queue."""
        for keys in self._new_keys:
            everyone = all_gather_rows(keys)
            places = (self.queue_ptr + torch.arange(len(everyone), device=keys.device)) % self.options.queue
            self.queue.index_copy_(1, places, everyone.T)
            self.queue_ptr.add_(len(everyone)).remainder_(self.options.queue)
        self._new_keys = []

    def get_extra_state(self) -> dict[str, Any]:
        """The shuffling generator, for `state_dict`."""
        return {"shuffler": self._shuffler.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self._shuffler.set_state(state["shuffler"].cpu())
