"""Make a small photo-like data set with exact foreground masks, for demos, tests and benchmarks.

Every photo shows one object, whose outline is its class, before one of as many families of background texture.
In `train` the family usually is the one that goes with the class, so a self-supervised model can cheat by matching
backgrounds, as it can on real photos. `mixed_same` and `mixed_rand` measure how much it did: the same objects on
their own class's backgrounds and on backgrounds of random classes (ImageNet-9's Mixed-Same and Mixed-Rand).

    python -m tools.demo_data --out out/demo/data

    OUT/{train,mixed_same,mixed_rand}/CLASS/CLASS_00000.jpg    photos, 200 to 500 pixels a side
    OUT/masks/{train,mixed_same,mixed_rand}/CLASS/....png      8-bit masks, 255 where the object covers half or more
    OUT/labels.csv                                             path,label,class,background
    OUT/demo.json                                              the settings; there once the set is complete

A photo depends on the seed, its split, its index, and its class and family alone, never on the number of workers.
"""

import argparse
import colorsys
import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dali_bgaug.errors import UserError
from tools._cli import default_workers, process, run

VERSION = 1  # goes up whenever the same settings give other pixels
_JPEG_QUALITY = 90
_SUPERSAMPLING = 4  # sub-pixels a side from which a pixel's coverage is counted
_CHUNK = 25  # photos a job
# Random streams (foreground, background) of each split: the mixed splits share their foregrounds.
_STREAMS = {"train": (0, 1), "mixed_same": (2, 3), "mixed_rand": (2, 4)}


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What a demo set holds; two sets with equal settings are equal byte for byte."""

    photos: int = 2000
    """Training photos, spread evenly over the classes."""
    test_photos: int = 200
    """Photos in each of the two mixed splits."""
    classes: int = 9
    """Classes in use, 2 to 9; background families are as many."""
    correlation: float = 0.9
    """Share of training photos whose background family is the one of their class."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= len(CLASSES):
            raise UserError(f"--classes is {self.classes}: give 2 to {len(CLASSES)}")
        for option, value in (("--photos", self.photos), ("--test-photos", self.test_photos)):
            if value < self.classes:
                raise UserError(f"{option} is {value}: give at least one a class, {self.classes} or more")
        if not 0 <= self.correlation <= 1:
            raise UserError(f"--correlation is {self.correlation}: give a share, 0 to 1")
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}: give 0 or more")


@dataclass(frozen=True)
class Photo:
    """One photo of the plan: what it will show, before anything is drawn."""

    split: str
    index: int
    label: int
    """Index into CLASSES."""
    family: int
    """Index into BACKGROUNDS; family k is the one that goes with class k."""

    @property
    def path(self) -> str:
        """The photo's path below OUT."""
        name = CLASSES[self.label]
        return f"{self.split}/{name}/{name}_{self.index:05d}.jpg"

    @property
    def mask_path(self) -> str:
        """The mask's path below OUT."""
        return str(Path("masks", self.path).with_suffix(".png"))


def plan(settings: DemoSettings) -> list[Photo]:
    """Draw the class and background family of every photo of the three splits; sorted by path."""
    photos = []
    for split, (_, stream) in _STREAMS.items():
        for index in range(settings.photos if split == "train" else settings.test_photos):
            rng = np.random.default_rng([settings.seed, stream, index, 0])
            label = index % settings.classes
            family = label
            if split == "mixed_rand":
                family = int(rng.integers(settings.classes))
            elif split == "train" and rng.random() >= settings.correlation:
                family = int(label + rng.integers(1, settings.classes)) % settings.classes
            photos.append(Photo(split, index, label, family))
    return sorted(photos, key=lambda photo: photo.path)


# ---------------------------------------------------------------- shared drawing tools


@cache
def _frequencies(stretch: float) -> np.ndarray:
    down, across = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :]
    radius = np.hypot(down / stretch, across * stretch)
    radius[0, 0] = np.inf  # no constant part
    return radius.astype(np.float32)


def _noise(
    rng: np.random.Generator, height: int, width: int, exponent: float = 1.0, stretch: float = 1.0
) -> np.ndarray:
    """Gaussian noise with a 1/f**exponent amplitude spectrum: (H, W) float32, mean 0, deviation 1.

    `stretch` > 1 draws it out sideways. One cell covers 2x2 pixels, so that a photo costs a 256x256 transform.
    """
    spectrum = rng.standard_normal((256, 129, 2), np.float32).view(np.complex64)[..., 0]
    field = np.fft.irfft2(spectrum * _frequencies(stretch) ** -exponent).astype(np.float32)
    field /= field.std()
    image = Image.fromarray(field)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, (0, 0, width / 2, height / 2)))


def _colour(rng: np.random.Generator, hue: float, saturation: float, value: float) -> np.ndarray:
    """An RGB colour (3,) in [0, 1] near the given one; one photo in eight or so takes any hue."""
    hue = rng.random() if rng.random() < 0.12 else hue + rng.normal(0, 0.04)
    saturation, value = np.clip([saturation + rng.normal(0, 0.1), value + rng.normal(0, 0.07)], 0.03, 1)
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _ramp(tone: np.ndarray, *colours: np.ndarray) -> np.ndarray:
    """Colour a (H, W) tone in [0, 1] along evenly spaced colours: (H, W, 3) float32."""
    steps = np.linspace(0, 1, 512)
    knots = np.linspace(0, 1, len(colours))
    table = np.stack([np.interp(steps, knots, channel) for channel in np.stack(colours, 1)], 1)
    return table.astype(np.float32)[(np.clip(tone, 0, 1) * 511).astype(np.int16)]


def _grid(
    rng: np.random.Generator, height: int, width: int, cell: float, tilt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (u, v) in cells, turned by up to `tilt` radians about a random origin; (H, W) float32 each."""
    turn = rng.uniform(-tilt, tilt)
    x = (np.arange(width, dtype=np.float32)[None, :] + np.float32(rng.uniform(0, 999))) / np.float32(cell)
    y = (np.arange(height, dtype=np.float32)[:, None] + np.float32(rng.uniform(0, 999))) / np.float32(cell)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return c * x + s * y, c * y - s * x


# ---------------------------------------------------------------- backgrounds: (H, W, 3) float32 in [0, 1]


def _grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    dark, light = _colour(rng, 0.28, 0.75, 0.16), _colour(rng, 0.24, 0.6, 0.7)
    image = Image.fromarray((_ramp(0.3 + 0.1 * _noise(rng, height, width), dark, light) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    blades = 1800
    length = rng.uniform(0.05, 0.15) * (height + width) / 2
    foot = np.sort(rng.uniform(-0.02, 1.2, blades)) * height  # far blades first, near ones over them
    left = rng.uniform(-0.1, 1.1, blades) * width
    lean = length * (rng.normal(0, 0.3) + rng.normal(0, 0.4, blades))
    rise = length * rng.uniform(0.4, 1.2, blades)
    inks = (_ramp(rng.beta(1.6, 2, (1, blades)), dark, light)[0] * 255).astype(int)
    lines = np.stack([left, foot, left + 0.3 * lean, foot - 0.6 * rise, left + lean, foot - rise], 1)
    thickness = max(1, round(length / 14))
    for line, ink in zip(lines.tolist(), inks.tolist(), strict=True):
        draw.line(line, tuple(ink), thickness)
    return np.asarray(image, np.float32) / 255


def _leaves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    hue = rng.choice([0.07, 0.11, 0.3])  # autumn or summer
    dark, mid, light = (_colour(rng, hue + 0.03 * k, 0.75, 0.25 + 0.28 * k) for k in range(3))
    size = rng.uniform(0.05, 0.09) * (height + width) / 2
    leaves = int(5 * height * width / size**2 / 2)
    image = Image.new("RGB", (width, height), tuple((dark * 120).astype(int)))
    draw = ImageDraw.Draw(image)
    along = np.array([-1, -0.6, 0, 0.55, 1, 0.55, 0, -0.6])
    half_width = np.array([0, 0.36, 0.5, 0.34, 0, -0.34, -0.5, -0.36])
    turn = rng.uniform(0, 2 * np.pi, leaves)
    scale = size * rng.uniform(0.6, 1.2, leaves)
    outline = (scale * np.exp(1j * turn))[:, None] * (along + 1j * half_width * rng.uniform(0.7, 1.2))
    outline += (rng.uniform(0, width, leaves) + 1j * rng.uniform(0, height, leaves))[:, None]
    depth = np.linspace(0.45, 1, leaves)  # buried leaves are darker
    inks = _ramp(rng.random((1, leaves)), dark, mid, light)[0] * (255 * depth[:, None])
    for points, ink in zip(outline, inks, strict=True):
        corners = np.stack([points.real, points.imag], 1).ravel().tolist()
        draw.polygon(corners, tuple(ink.astype(int)), tuple((ink * 0.55).astype(int)))
        draw.line(corners[:2] + corners[8:10], tuple((ink * 0.7).astype(int)))
    return np.asarray(image, np.float32) / 255


def _masonry(
    rng: np.random.Generator, height: int, width: int, cell: float, aspect: float, shift: float, joint: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of stones `aspect` times as wide as high: parity of row + column, tone of each, and 0 in joints to 1."""
    u, v = _grid(rng, height, width, cell, 0.25 if shift else np.pi)
    row = np.floor(v)
    u = u / np.float32(aspect) + np.float32(shift) * row
    column = np.floor(u)
    across, down = u - column, v - row
    to_joint = np.minimum(np.minimum(across, 1 - across) * np.float32(aspect), np.minimum(down, 1 - down))
    row, column = row.astype(np.int16), column.astype(np.int16)
    tones = rng.random((64, 64), np.float32)[row % 64, column % 64]
    return (row + column) % 2, tones, np.clip((to_joint - joint) * 12, 0, 1)


def _bricks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    _, tones, solid = _masonry(rng, height, width, rng.uniform(16, 36), rng.uniform(1.9, 3), 0.5, 0.06)
    hue = rng.choice([0.02, 0.06, 0.1])
    bricks = _ramp(
        0.2 + 0.6 * tones + 0.12 * _noise(rng, height, width, 0.6),
        _colour(rng, hue, 0.6, 0.35),
        _colour(rng, hue, 0.6, 0.6),
        _colour(rng, hue, 0.45, 0.8),
    )
    mortar = _colour(rng, 0.1, 0.12, rng.choice([0.35, 0.75]))
    return mortar + (bricks - mortar) * solid[..., None]


def _tiles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    parity, tones, solid = _masonry(rng, height, width, rng.uniform(24, 60), 1, 0, 0.02)
    hue = rng.random()
    marble = 0.12 * np.abs(_noise(rng, height, width, 1.4))
    tiles = _ramp(
        0.08 + 0.75 * parity + 0.1 * tones + marble, _colour(rng, hue, 0.4, 0.3), _colour(rng, hue, 0.15, 0.9)
    )
    return tiles * (0.45 + 0.55 * solid[..., None])


def _wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    u, v = _grid(rng, height, width, rng.uniform(10, 28), np.pi)
    centre_u, centre_v = u.mean() + rng.normal(0, 20), v.mean() + rng.normal(0, 5)
    radius = np.hypot((u - centre_u) * np.float32(rng.uniform(0.1, 0.35)), v - centre_v)
    radius += 0.5 * _noise(rng, height, width, 1.8)
    ring = radius % 1  # light early wood darkens slowly, then ends abruptly
    tone = 0.85 - 0.55 * ring**2 + 0.08 * _noise(rng, height, width, 0.5)
    hue = rng.uniform(0.05, 0.1)
    return _ramp(tone, _colour(rng, hue, 0.75, 0.2), _colour(rng, hue, 0.65, 0.5), _colour(rng, hue, 0.5, 0.8))


def _water(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    u, v = _grid(rng, height, width, rng.uniform(14, 32), 0.3)
    warp = _noise(rng, height, width, 1.5, rng.uniform(1.3, 2.2))
    swell = np.sin(2 * np.pi * (v + 0.4 * u) + 3 * warp) + np.sin(4.6 * (1.3 * v - 0.5 * u) - 4 * warp)
    tone = 0.36 + 0.13 * swell + 0.1 * warp
    tone += np.clip(swell - 1.1, 0, 1) * 0.7  # glints on the crests
    hue = rng.uniform(0.47, 0.6)
    deep, mid = _colour(rng, hue, 0.85, 0.22), _colour(rng, hue, 0.65, 0.55)
    return _ramp(tone, deep, mid, _colour(rng, hue, 0.1, 0.97))


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    zenith, horizon = _colour(rng, 0.6, 0.7, 0.6), _colour(rng, rng.choice([0.56, 0.06]), 0.3, 0.9)
    sky = _ramp(np.linspace(0, 1, height)[:, None].repeat(width, 1), zenith, horizon)
    puff = _noise(rng, height, width, rng.uniform(1.5, 1.9), rng.uniform(1, 1.6))
    cover = np.clip(0.5 + 0.6 * (puff - rng.uniform(-0.4, 0.5)), 0, 1)
    cloud = _ramp(1.1 - 0.3 * puff, _colour(rng, 0.6, 0.12, 0.6), np.float32([1, 1, 1]))
    return sky + (cloud - sky) * (cover**1.5)[..., None]


def _sand(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    _, v = _grid(rng, height, width, rng.uniform(22, 55), np.pi)
    warp = _noise(rng, height, width, 2, 1.2)
    slope = (v + 0.45 * warp) % 1
    ripple = np.minimum(slope / 0.75, (1 - slope) / 0.25)  # long windward side, short steep lee
    tone = 0.35 + 0.35 * ripple + 0.06 * warp + 0.06 * rng.standard_normal((height, width), np.float32)
    return _ramp(tone, _colour(rng, 0.08, 0.55, 0.4), _colour(rng, 0.1, 0.45, 0.75), _colour(rng, 0.12, 0.3, 0.97))


def _night(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    _, v = _grid(rng, height, width, (height + width) / rng.uniform(2, 4), np.pi)
    haze = _noise(rng, height, width, 1.5)
    band = np.exp(-(((v - v.mean() + rng.normal(0, 0.2)) / 0.35) ** 2))  # the Milky Way
    hue = rng.uniform(0.58, 0.8)
    tone = 0.2 + band * (0.35 + 0.18 * haze) + 0.05 * haze
    sky = _ramp(tone, _colour(rng, hue, 0.8, 0.06), _colour(rng, hue, 0.6, 0.3), _colour(rng, hue + 0.1, 0.3, 0.75))
    stars = np.zeros((height, width), np.float32)
    count = int(height * width / rng.uniform(150, 500))
    stars[rng.integers(height, size=count), rng.integers(width, size=count)] = rng.pareto(1.5, count) * 90 + 90
    points = Image.fromarray(np.minimum(stars, 4000).astype(np.float32) / 16).convert("L")
    glow = np.asarray(points.filter(ImageFilter.GaussianBlur(1)), np.float32) * 0.12
    return sky + np.minimum(glow + np.minimum(stars / 400, 0.6), 1)[..., None]


# ---------------------------------------------------------------- outlines, as complex numbers about the origin


def _polar(*radii: float, corners: int) -> np.ndarray:
    """Points at equal angles, the radii taking turns."""
    return np.resize(radii, corners) * np.exp(2j * np.pi * np.arange(corners) / corners)


def _cross(rng: np.random.Generator) -> list[np.ndarray]:
    arm = rng.uniform(0.24, 0.36)
    quarter = np.array([1 - 1j * arm, 1 + 1j * arm, arm + 1j * arm])
    return [np.concatenate([quarter * 1j**k for k in range(4)])]


def _crescent(rng: np.random.Generator) -> list[np.ndarray]:
    horn, centre = np.exp(1j * rng.uniform(0.4, 0.7)), rng.uniform(0.25, 0.45)
    outer = np.exp(1j * np.linspace(np.angle(horn), 2 * np.pi - np.angle(horn), 60))
    to_horn = np.angle(horn - centre)  # the bite is a circle through both horns
    inner = centre + abs(horn - centre) * np.exp(1j * np.linspace(2 * np.pi - to_horn, to_horn, 60))
    return [np.concatenate([outer, inner])]


def _heart(rng: np.random.Generator) -> list[np.ndarray]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    curve = 16 * np.sin(t) ** 3 - 1j * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [curve / 16]


def _arrow(rng: np.random.Generator) -> list[np.ndarray]:
    neck, half = rng.uniform(-0.15, 0.15), rng.uniform(0.18, 0.28)
    side = np.array([1, neck + 0.7j, neck + 1j * half, -1 + 1j * half])
    return [np.concatenate([side, side[:0:-1].conj()])]


# What an object's outline is, then its holes. Their order is the class index.
_OUTLINES: dict[str, Callable[[np.random.Generator], list[np.ndarray]]] = {
    "disc": lambda rng: [_polar(1, corners=72)],
    "triangle": lambda rng: [_polar(1, corners=3)],
    "star": lambda rng: [_polar(1, rng.uniform(0.36, 0.5), corners=10)],
    "cross": _cross,
    "ring": lambda rng: [_polar(1, corners=72), _polar(rng.uniform(0.45, 0.68), corners=72)],
    "crescent": _crescent,
    "heart": _heart,
    "square": lambda rng: [_polar(1, corners=4)],
    "arrow": _arrow,
}
CLASSES = tuple(_OUTLINES)

# Family k goes with class k.
_FAMILIES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "grass": _grass,
    "bricks": _bricks,
    "clouds": _clouds,
    "wood": _wood,
    "leaves": _leaves,
    "water": _water,
    "tiles": _tiles,
    "sand": _sand,
    "night": _night,
}
BACKGROUNDS = tuple(_FAMILIES)


# ---------------------------------------------------------------- photos


def _silhouette(rng: np.random.Generator, name: str, height: int, width: int) -> tuple[Image.Image, float]:
    """Place an object: the share of each pixel it covers, x 255 (mode L), and its longest extent in pixels."""
    sides = np.array([width, height])
    while True:  # until the object fills a fair share of the photo
        reach = rng.uniform(0.85, 1.05) if rng.random() < 0.06 else rng.uniform(0.25, 0.65)
        spill = 0.15 if rng.random() < 0.15 else 0.0  # part of the object that may be cut off
        stretch, turn = np.exp(rng.uniform(-0.22, 0.22)), np.exp(2j * np.pi * rng.random())
        rings = [(ring.real * stretch + 1j * ring.imag / stretch) * turn for ring in _OUTLINES[name](rng)]
        rings = [np.stack([ring.real, ring.imag], 1) for ring in rings]
        low, extent = rings[0].min(0), np.ptp(rings[0], 0)
        scale = reach * sides.min() / extent.max()
        extent = extent * scale
        corner = (sides - extent) * rng.random(2) + spill * extent * rng.choice([-1, 1], 2)
        canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
        draw = ImageDraw.Draw(canvas)
        for ring, ink in zip(rings, (255, 0), strict=False):
            draw.polygon((((ring - low) * scale + corner) * _SUPERSAMPLING).ravel().tolist(), ink)
        coverage = canvas.reduce(_SUPERSAMPLING)
        if 0.03 <= np.mean(np.asarray(coverage) > 127) <= 0.45:
            return coverage, float(extent.max())


def _surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Paint for an object, of no colour or pattern in particular: (H, W, 3) float32."""
    hue, cell = rng.random(), rng.uniform(8, 40)
    u, v = (np.sin(2 * np.pi * axis) for axis in _grid(rng, height, width, cell, np.pi))
    pattern = (np.zeros_like(u), 2 * u, 4 * u * v)[rng.integers(3)]  # plain, striped or spotted
    tone = 0.5 + rng.uniform(0.05, 0.25) * pattern + rng.uniform(0.03, 0.15) * _noise(rng, height, width, 1.2)
    other = hue + rng.normal(0, 0.12)
    return _ramp(tone, _colour(rng, hue, 0.75, 0.55), _colour(rng, hue, 0.7, 0.8), _colour(rng, other, 0.4, 0.95))


def _blurred(image: Image.Image, radius: float, offset: tuple[float, float] = (0, 0)) -> np.ndarray:
    """A mask (mode L) blurred and moved by `offset` = (dx, dy) pixels: (H, W) float32 in [0, 1]."""
    # At a quarter of the size: what is blurred needs no more, and it is sixteen times quicker.
    small = image.reduce(4).filter(ImageFilter.GaussianBlur(radius / 4))
    shift = (1, 0, -offset[0] / 4, 0, 1, -offset[1] / 4)
    small = small.transform(small.size, Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR)
    box = (0, 0, image.width / 4, image.height / 4)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC, box), np.float32) / 255


def render(photo: Photo, seed: int) -> tuple[Image.Image, Image.Image]:
    """Draw a photo (RGB) and its mask (L; 255 where the object covers half a pixel or more, else 0)."""
    foreground, background = _STREAMS[photo.split]
    rng = np.random.default_rng([seed, foreground, photo.index, 1])  # object, light and sensor
    height, width = (int(side) for side in rng.integers(200, 501, 2))
    coverage, size = _silhouette(rng, CLASSES[photo.label], height, width)
    light = rng.uniform(0, 2 * np.pi)
    away = (float(np.cos(light)), float(np.sin(light)))  # from the light, across the image

    paint = _FAMILIES[BACKGROUNDS[photo.family]]
    scene = paint(np.random.default_rng([seed, background, photo.index, 2]), height, width)
    drop = rng.uniform(0.04, 0.12) * size
    shadow = _blurred(coverage, 0.6 * drop + 1, (away[0] * drop, away[1] * drop))
    scene = scene * (1 - rng.uniform(0.35, 0.7) * shadow)[..., None]

    rim = rng.uniform(0.05, 0.12) * size  # the object's edge is rounded off as far in as this
    lit = _blurred(coverage, rim, (away[0] * rim, away[1] * rim)) - _blurred(coverage, rim)
    body = _surface(rng, height, width) * (1 - rng.uniform(0.5, 1) * lit)[..., None]
    body += (rng.uniform(0, 1.5) * np.clip(-lit - 0.25, 0, 1))[..., None]  # highlight
    share = np.asarray(coverage, np.float32)[..., None] / 255
    scene = scene + (body - scene) * share

    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    gain = rng.uniform(0.85, 1.1) - rng.uniform(0, 0.25) * (away[0] * x + away[1] * y)
    gain = gain - rng.uniform(0, 0.12) * (x * x + y * y)  # vignetting
    grain = rng.uniform(0.008, 0.03) * rng.standard_normal((height, width), np.float32)
    cast = rng.normal(1, 0.04, 3).astype(np.float32)
    scene = (scene * gain[..., None] + grain[..., None]) * (cast * np.float32(255))
    return Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8)), coverage.point(lambda c: 255 * (c > 127))


# ---------------------------------------------------------------- files


def _write(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _write_photos(out: Path, photos: list[Photo], seed: int) -> None:
    for photo in photos:
        if (out / photo.path).exists():  # from a run that was interrupted
            continue
        image, mask = render(photo, seed)
        for picture, path, options in (
            (mask, photo.mask_path, {"format": "PNG"}),
            (image, photo.path, {"format": "JPEG", "quality": _JPEG_QUALITY}),
        ):
            content = io.BytesIO()
            picture.save(content, **options)
            _write(out / path, content.getvalue())


def _check_same(path: Path, wanted: dict[str, object]) -> None:
    """Raise UserError where the settings file at `path` is not the one of the set that is asked for."""
    try:
        found = dict(json.loads(path.read_text()))
    except ValueError as error:
        raise UserError(f"{path} is no settings file ({error}): delete the set or choose another --out") from None
    for key, value in wanted.items():
        if found.get(key) != value:
            raise UserError(
                f"{path}: the set there has {key} = {found.get(key)}, asked for is {key} = {value}: "
                "choose another --out, or delete that folder first"
            )


def write_demo_set(out: Path, settings: DemoSettings, workers: int) -> None:
    """Write the set below `out`, or the rest of it after an interruption; nothing if it is complete.

    Raises UserError if `out` holds anything else, a set of other settings included.
    """
    finished, started = out / "demo.json", out / "demo.json.unfinished"
    wanted: dict[str, object] = {"version": VERSION, **asdict(settings)}
    if finished.exists():
        _check_same(finished, wanted)
        print(f"{finished} is there already, with these settings: nothing to do")
        return
    if started.exists():
        _check_same(started, wanted)
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and no demo set: choose another --out, or empty it first")
    else:
        _write(started, (json.dumps(wanted, indent=2) + "\n").encode())

    photos = plan(settings)
    chunks = [photos[start : start + _CHUNK] for start in range(0, len(photos), _CHUNK)]
    jobs = [(out, chunk, settings.seed) for chunk in chunks]
    for _ in process(_write_photos, jobs, [len(chunk) for chunk in chunks], workers, "demo photos"):
        pass
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["path", "label", "class", "background"])
    rows.writerows([p.path, p.label, CLASSES[p.label], BACKGROUNDS[p.family]] for p in photos)
    _write(out / "labels.csv", table.getvalue().encode())
    started.rename(finished)


def main() -> None:
    """The command line; see the module's docstring."""
    default = DemoSettings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the set, new or interrupted")
    parser.add_argument("--photos", type=int, default=default.photos, help="training photos")
    parser.add_argument("--test-photos", type=int, default=default.test_photos, help="photos a mixed split")
    parser.add_argument("--classes", type=int, default=default.classes, help="2 to 9")
    parser.add_argument(
        "--correlation", type=float, default=default.correlation, help="share of backgrounds that fit the class"
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes")
    options = vars(parser.parse_args())
    out, workers = options.pop("out"), options.pop("workers")
    write_demo_set(out, DemoSettings(**options), workers)


if __name__ == "__main__":
    run(main)
