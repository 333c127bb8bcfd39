"""Bounds of the differences to the reference implementation."""

BOUNDS = {
    # step: mean and 99.9th percentile of the absolute difference, in grey levels of 255
    "decode": (0.01, 0.5),
    "crop": (0.5, 6),
    "brightness": (0.01, 1),
    "contrast": (0.1, 1.5),
    "saturation": (0.05, 1),
    "hue": (1.5, 12),  # PIL keeps hue and saturation in bytes
    "jitter but for hue": (0.2, 2.5),
    "jitter": (1.8, 14),
    "jitter and grayscale": (0.2, 2.5),
    "blur": (0.8, 12),  # PIL's Gaussian is made of boxes, and borders are extended differently
    "blur, against a window of 23": (0.01, 0.1),
    "solarize": (0.01, 0.5),
    "mask": (0.8, 255),  # nearest neighbour: the pixels an edge only grazes
    "composite": (0.3, 0.6),  # PIL rounds the grey level
    "tile": (0.5, 6),
    "tile, against a JPEG of 256 pixels": (2.5, 70),
    "view": (1.3, 20),
}


def check_pixels(found: dict[str, dict[str, float]], bounds: dict[str, tuple[float, float]]) -> None:
    assert found.keys() == bounds.keys()
    for step, (mean, high) in bounds.items():
        assert found[step]["mean"] <= mean, (step, found[step])
        assert found[step]["p99.9"] <= high, (step, found[step])
