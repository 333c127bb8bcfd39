"""BYOL's two views, which are not alike: the first is always blurred, the second seldom, but solarized.

Grill et al. 2020, appendix B; with the crop scale of the background augmentation paper.
"""

DEFAULTS = {
    "crop": {"scale": [0.2, 1.0]},
    "photometric": {"saturation": 0.2},
    "views": {
        "view_1": {"photometric": {"blur_p": 1.0}},
        "view_2": {"photometric": {"blur_p": 0.1, "solarize_p": 0.2}},
    },
}
"""view_1, view_2: normalised [N, 3, size, size]."""
