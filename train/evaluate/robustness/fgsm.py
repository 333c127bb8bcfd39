"""Placeholder of the score under attack, until its module is merged."""

from typing import NamedTuple

import numpy as np

from dali_bgaug.views.options import NormaliseOptions


class FgsmScore(NamedTuple):
    """What the score is made of."""

    labels: np.ndarray
    normalise: NormaliseOptions
    epsilon: float
