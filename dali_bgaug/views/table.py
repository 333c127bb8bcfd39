"""The table of render jobs: the contract between `plan.py`, which writes it, and the renderers, which read
it.

A job makes one image: a view, a donor's treated tile, a negative, a rotation, a thumbnail. Policy and
chance end where the table is written, pixels begin where it is read. A renderer goes through the jobs in
three waves: donors, then views, which may lie over donors, then copies, which are made of finished views.

What a renderer adds by itself is in two more records a job: `CROP`, the box (by `crop_boxes.choose`, or by
the same law on the device), and `ADDRESS`, where pixels lie in memory.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

DRAWS = 10
"""Crop boxes drawn for a random crop, of which the first good one is taken; torchvision's number."""

TIE = 2.0**-10
"""Added to a place in a mask, in its pixels, before it is rounded down: boxes lie on whole pixels, so many
places are whole numbers but for rounding, and every precision has to take the same pixel."""
CUT = 2.0**-10
"""Added to a grey level before it is cut to a whole one, for the same reason."""
PHOTO, TILE, IMAGE = 0, 1, 2
"""`source`: a sample's photo, its tiled background stretched over the photo's frame, a finished image."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0, 1, 2, 3
"""`order`: the steps of the colour jitter."""
WHOLE, RANDOM, CENTRAL = 0, 1, 2
"""`crop`: the whole frame; the first of `draws` that is good; `resize` and CenterCrop."""
KEPT, GREY, RENDERED = 0, 1, 2
"""`background`: where the mask is background, that of the photo, a grey level, another job's image."""

JOB = np.dtype(
    [
        # What is drawn, and where it goes.
        ("source", np.int32),
        ("sample", np.int32),  # PHOTO, TILE: whose, a place in the batch; IMAGE: the job that makes it
        ("slot", np.int32),  # number of the output, -1: of no output, other jobs use it
        ("row", np.int32),  # place in the output
        ("size", np.int32),  # side in pixels
        ("turns", np.int32),  # IMAGE: quarter turns counter-clockwise
        # The crop box, which lies in the frame of a photo.
        ("frame", np.int32),  # the photo's place in the batch: its size counts, and its mask
        ("crop", np.int32),
        ("flip", np.int32),
        ("resize", np.int32),  # CENTRAL: short side of the photo in pixels before, 0: its own
        ("area", np.float32, 2),  # RANDOM: range of the area as a share of the frame
        ("log_ratio", np.float32, 2),  # range of log(width / height)
        ("fg_min", np.float32),  # least share of the foreground
        ("draws", np.float32, (4, DRAWS)),  # uniform numbers: area, ratio, y and x of each crop box
        # Colours, of values 0 to 255, clipped after every step; after all but hue cut to whole levels.
        ("jittered", np.int32),
        ("order", np.int32, 4),  # the steps, first to last: each of them once
        ("factor", np.float32, 4),  # by step; 1 changes nothing. HUE: the shift in turns, -.5 to .5
        ("grayscale", np.int32),  # after the jitter
        ("sigma", np.float32),  # of the Gaussian blur in pixels, cut at 3 sigma; 0: none
        ("solarized", np.int32),  # values at and above 128 are inverted
        ("scale", np.float32, 3),  # in the end x * scale + shift, by channel
        ("shift", np.float32, 3),
        # The background: composited right before the image is normalised.
        ("background", np.int32),
        ("background_job", np.int32),  # RENDERED: the job whose image it is
        ("grey", np.float32),  # GREY: 0 to 255
        ("before", np.int32),  # or before colour, blur and solarize
        ("mask_of", np.int32),  # the job whose crop box and distortion the mask has
        ("only_visible", np.int32),  # only if that crop box shows foreground
        ("coupled_to", np.int32),  # only if that job has got its background, too; -1: no such
        # Distortion of this job's mask, about the image's centre (`distortion.draw_distortions`).
        ("distorted", np.int32),
        ("box", np.int32),  # the foreground's box instead of the foreground
        ("warp", np.float32, (2, 2)),  # from a distorted place back to an undistorted one, (x, y)
        ("translate", np.float32, 2),  # shift as a share of the foreground's box in the crop box, (x, y)
    ],
    align=True,
)

CROP = np.dtype(
    [
        ("crop_box", np.float32, 4),  # y0, x0, y1, x1 in pixels of the frame; x0 > x1 in a flipped view
        ("affine", np.float32, (2, 3)),  # distorted: where a mask's pixel (x, y, 1) comes from
        ("visible", np.int32),  # whether foreground lies in the crop box
    ],
    align=True,
)

ADDRESS = np.dtype(
    [
        ("pixels", np.int64),  # address of the source: uint8 [height, width, 3], or a finished image
        ("background", np.int64),  # address of the background's image
        ("mask", np.int64),  # address of the mask of `mask_of`'s frame: bits, rows from the top
        ("out", np.int64),  # address of the image to make: [size, size, 3]
        ("height", np.int32),
        ("width", np.int32),
        ("frame_height", np.int32),
        ("frame_width", np.int32),
        ("copied_to", np.int32),  # the next copy that needs this image and nothing else; -1: no such
        ("is_copied", np.int32),  # whether this job is such a copy
        ("tiled", np.int32, 8),  # box and strip of a tiled background, read from its photo; or zeros
    ],
    align=True,
)


class Slot(NamedTuple):
    """An output: images of one size."""

    name: str
    size: int
    turns: int = 1
    """Images a photo."""

    def shape(self, count: int) -> tuple[int, ...]:
        """Of its images for so many photos: [N, size, size, 3], or [N, turns, size, size, 3]."""
        return (count, *([self.turns] if self.turns > 1 else []), self.size, self.size, 3)


@dataclass(frozen=True)
class Table:
    """All jobs of a batch."""

    jobs: np.ndarray
    """JOB [J]: donors, then views, then copies."""
    donors: int
    """Number of jobs that treat donors."""
    views: int
    """Number of jobs that make views; the rest are copies."""
    per_photo: int
    """Views of a photo, which follow one another."""
    slots: tuple[Slot, ...]
    replaced: np.ndarray
    """int32 [N, views]: the views' jobs, to say whether they got another background."""
    matched: np.ndarray
    """int32 [N, negatives]: the negatives' jobs, likewise."""

    @property
    def count(self) -> int:
        """Photos of the batch."""
        return len(self.replaced)


def new_jobs(*shape: int) -> np.ndarray:
    """Jobs that change nothing: JOB [*shape]."""
    jobs = np.zeros(shape, JOB)
    jobs["scale"], jobs["coupled_to"] = 1, -1
    jobs["order"], jobs["factor"] = [BRIGHTNESS, CONTRAST, SATURATION, HUE], [1, 1, 1, 0]
    return jobs
