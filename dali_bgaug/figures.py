"""Figures by matplotlib, drawn without a screen."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dali_bgaug.files import atomic

__all__ = ["plt", "save"]


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as PNG, atomically, and close it."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    plt.close(figure)
