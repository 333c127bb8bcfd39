"""Colour jitter and grayscale on the GPU, in Triton: `kernels._colour`.

Contrast is about the image's mean grey as it is then. So `resample` does the steps before it and sums up,
and `colour` the rest.
"""

import triton
import triton.language as tl

from dali_bgaug.views import table
from dali_bgaug.views.gpu_records import load_float, load_int, offset_of
from dali_bgaug.views.table import JOB

_CONTRAST, _SATURATION, _HUE = (tl.constexpr(step) for step in (table.CONTRAST, table.SATURATION, table.HUE))
_CUT = tl.constexpr(table.CUT)
_JITTERED, _ORDER, _FACTOR, _GRAYSCALE = (
    offset_of(JOB, name) for name in ("jittered", "order", "factor", "grayscale")
)


@triton.jit
def grey(red, green, blue):
    """Grey with Rec. 601 weights."""
    return 0.299 * red + 0.587 * green + 0.114 * blue


@triton.jit
def is_coloured(job):
    """Whether there is jitter or grayscale."""
    return (load_int(job + _JITTERED) != 0) | (load_int(job + _GRAYSCALE) != 0)


@triton.jit
def _clip(value, high):
    return tl.minimum(tl.maximum(value, 0.0), high)


@triton.jit
def _cut(value):
    """A level clipped and cut to a whole one, as PIL does in blending two images."""
    return tl.floor(_clip(value + _CUT, 255.0))


@triton.jit
def _blend(red, green, blue, factor, level):
    """Blend each value with a level."""
    red, green = _cut(level + factor * (red - level)), _cut(level + factor * (green - level))
    return red, green, _cut(level + factor * (blue - level))


@triton.jit
def _shift_hue(red, green, blue, turns):
    """HSV's hue shifted: a pixel's largest and smallest value stay."""
    high, low = tl.maximum(tl.maximum(red, green), blue), tl.minimum(tl.minimum(red, green), blue)
    span = high - low
    scale = 1 / tl.where(span > 0, span, 1.0)
    hue = tl.where(high == green, (blue - red) * scale + 2, (red - green) * scale + 4)
    hue = tl.where(high == red, (green - blue) * scale, hue) + 6 * turns  # in sixths of a turn, -4 to 8
    hue = tl.where(hue < 0, hue + 6, hue)
    hue = tl.where(hue >= 6, hue - 6, hue)
    red = low + span * _clip(tl.abs(hue - 3) - 1, 1.0)
    green = low + span * _clip(2 - tl.abs(hue - 2), 1.0)
    return red, green, low + span * _clip(2 - tl.abs(hue - 4), 1.0)


@triton.jit
def jitter(job, red, green, blue, mean, FROM_CONTRAST: tl.constexpr):
    """The steps before contrast, or contrast about `mean` and all after it with grayscale."""
    reached = False
    for number in range(4):
        step = load_int(job + _ORDER + 4 * number)
        reached = reached | (step == _CONTRAST)
        factor = load_float(job + _FACTOR + 4 * step)
        changes = (load_int(job + _JITTERED) != 0) & (factor != tl.where(step == _HUE, 0.0, 1.0))
        if changes & (reached == FROM_CONTRAST):
            if step == _HUE:
                red, green, blue = _shift_hue(red, green, blue, factor)
            else:
                level = tl.where(step == _SATURATION, tl.floor(grey(red, green, blue) + 0.5), 0.0)
                level = tl.where(step == _CONTRAST, tl.floor(mean + 0.5), level)
                red, green, blue = _blend(red, green, blue, factor, level)
    if FROM_CONTRAST:
        if load_int(job + _GRAYSCALE) != 0:
            red = tl.floor(grey(red, green, blue) + 0.5)
            green, blue = red, red
    return red, green, blue
