"""A stand-in for the package imagecorruptions-imaug: its import name, interface and sources of chance."""

from pathlib import Path

_PACKAGE = """
import numpy as np

def corrupt(image, severity, corruption_name, seed=None):
    assert image.dtype == np.uint8 and min(image.shape[:2]) >= 32
    print("as some say of sizes")
    if corruption_name in ("impulse_noise", "glass_blur"):
        noise = np.random.default_rng(seed).normal(size=image.shape)
    else:
        assert seed is None
        noise = np.random.normal(size=image.shape)
    return np.uint8(np.clip(image + 4 * severity * noise, 0, 255))
"""
_OPENCV = """
__version__ = "0.1"

def setNumThreads(number):
    assert number == 1
"""


def write_stand_in(folder: Path) -> Path:
    """Write the packages into a folder that is to come first on the path; returns it."""
    made_by = folder / "imagecorruptions_imaug-0.2.dist-info"
    made_by.mkdir(parents=True)
    (made_by / "METADATA").write_text("Metadata-Version: 2.1\nName: imagecorruptions-imaug\nVersion: 0.2\n")
    (folder / "imagecorruptions.py").write_text(_PACKAGE)
    (folder / "cv2.py").write_text(_OPENCV)
    return folder
