"""Learning rates."""

import math


def warmup_cosine(step: int, steps: int, warmup: int, peak: float) -> float:
    """Rise linearly from 0 to `peak` over `warmup` steps, then fall to 0 along half a cosine period.

    Step 0 of a run with warm-up has peak / warmup, so no step is wasted at a rate of 0.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def scaled_lr(base: float, batch_size: int) -> float:
    """The linear rule: a base rate per 256 photos, for a global batch."""
    return base * batch_size / 256
