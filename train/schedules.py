"""Schedules: learning rates, the momentum of a target network."""

import math
from collections.abc import Sequence


def warmup_cosine(
    step: int, steps: int, warmup: int, peak: float, start: float = 0.0, final: float = 0.0
) -> float:
    """Rise linearly from `start` to `peak` over `warmup` steps, then fall to `final` along half a cosine
    period.

    `step` counts from 0 and reaches `peak` at `warmup`, `final` at `steps` (that is, after the last one).
    Source: DeepMind's BYOL, `schedules.learning_schedule` (start and final 0).
    """
    if step < warmup:
        return start + (peak - start) * step / warmup
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def warmup_multistep(
    step: int, warmup: int, peak: float, milestones: Sequence[int], factor: float = 0.1, start: float = 0.0
) -> float:
    """Linear warm-up from `start` to `peak` in `warmup` steps; times `factor` from each milestone, a step."""
    if step < warmup:
        return start + (peak - start) * step / warmup
    return peak * factor ** sum(step >= milestone for milestone in milestones)


def cosine_momentum(step: int, steps: int, base: float) -> float:
    """Momentum of BYOL's target network: from `base` to 1 along half a cosine period (Grill et al. 2020)."""
    return 1 - (1 - base) * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def scaled_lr(base: float, batch_size: int, reference: int = 256) -> float:
    """The linear rule: a rate that holds for `reference` photos a step, for a step of `batch_size`."""
    return base * batch_size / reference
