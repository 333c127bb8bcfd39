"""Colour jitter, random grayscale, blur and solarize of a view, drawn as torchvision draws them.

ColorJitter: brightness, contrast about the mean grey of the image as it is then, saturation and HSV's hue,
in random order, clipped after every step. Recipes grew up with PIL's images, which are bytes after each
step: in blending PIL cuts fractions off, half a level on average, and so do we. PIL's hue is in bytes, too,
ours is exact; and a blur is a Gaussian cut at 3 sigma, where PIL's is made of boxes (`benchmarks/parity.md`).
"""

import numpy as np

from dali_bgaug.views.options import PhotometricOptions
from dali_bgaug.views.table import HUE


def draw_photometric(jobs: np.ndarray, options: PhotometricOptions, rng: np.random.Generator) -> None:
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
