"""RotNet: the four rotations of one view, whose background was replaced before its crop.

Gidaris, Singh, Komodakis 2018.
"""

DEFAULTS = {
    "crop": {"scale": [0.08, 1.0]},
    "photometric": {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0},
    "views": {"image": {"turns": 4}},
    "background": {"stage": "before", "donor": "none"},
}
"""image: normalised [N, 4, 3, size, size], turned counter-clockwise by 0, 90, 180 and 270 degrees."""
