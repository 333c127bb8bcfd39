"""SwAV's multi-crop: global views, whose backgrounds may be replaced, and smaller local ones, whose are not.

Caron et al. 2020; the standard deviation of red is the original code's.
"""

DEFAULTS = {
    "photometric": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    "views": {
        "global": {"count": 2, "crop": {"size": 224, "scale": [0.14, 1.0]}},
        "local": {"count": 6, "crop": {"size": 96, "scale": [0.05, 0.14]}, "background": False},
    },
    "normalise": {"std": [0.228, 0.224, 0.225]},
}
"""global_0, …, local_0, …: normalised [N, 3, size, size]."""
