"""One cropped and flipped view with its label: supervised training, linear probes, fine-tuning."""

DEFAULTS = {
    "crop": {"scale": [0.08, 1.0]},
    "photometric": {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0},
    "views": {"image": {}},
}
"""image: normalised [N, 3, size, size]."""
