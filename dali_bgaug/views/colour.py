"""Colour jitter, random grayscale, blur and solarize of a view, drawn as torchvision draws them.

ColorJitter: brightness, contrast about the mean grey of the picture as it is then, saturation and HSV's hue,
in random order, clipped after every step. What differs is rounding: PIL's pictures are bytes after each
step, ours are not (`benchmarks/parity.md`); and a blur is a Gaussian cut at 3 sigma, where PIL's is made of
boxes.
"""

import numpy as np

from dali_bgaug.views.options import PhotometricOptions
from dali_bgaug.views.table import HUE


def draw_look(jobs: np.ndarray, options: PhotometricOptions, rng: np.random.Generator) -> None:
    """Draw jitter, grayscale, blur and solarize of each job into its record, table.JOB [N]."""
    count = len(jobs)
    jobs["jittered"], jobs["grayscale"], blurred, jobs["solarized"] = (
        rng.random(count) < p for p in (options.jitter_p, options.grey_p, options.blur_p, options.solarize_p)
    )
    for step, spread in enumerate((options.brightness, options.contrast, options.saturation)):
        jobs["factor"][:, step] = rng.uniform(max(0.0, 1 - spread), 1 + spread, count)
    jobs["factor"][:, HUE] = rng.uniform(-options.hue, options.hue, count)
    jobs["order"] = rng.permuted(jobs["order"], axis=1)
    jobs["sigma"] = np.where(blurred, rng.uniform(*options.blur_sigma, count), 0.0)
