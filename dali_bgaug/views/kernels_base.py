"""What all compiled kernels of the CPU share."""

import numpy as np
from numba import njit

compiled = njit(nogil=True, fastmath=True)

ONE, TWO, THREE, SIX, NINE = np.array([1, 2, 3, 6, 9], np.uintp)
"""Places of pixels are unsigned: where one may be negative, Numba checks each, and there is no SIMD."""


@compiled
def copy(to: np.ndarray, values: np.ndarray) -> None:
    """Copy one line into another; Numba's own assignment is several times slower."""
    for place in range(len(values)):
        to[place] = values[place]
