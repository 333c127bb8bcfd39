"""The shapes of the demo set: outlines that make a class, families of background texture, their tools.

A family paints (H, W, 3) float32 in [0, 1] from a generator of its own; an outline is complex, about 0.
"""

import colorsys
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# ---------------------------------------------------------------- shared drawing tools


@cache
def _frequencies(stretch: float) -> np.ndarray:
    down, across = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :]
    radius = np.hypot(down / stretch, across * stretch)
    radius[0, 0] = np.inf  # no constant part
    return radius.astype(np.float32)


def noise(
    rng: np.random.Generator, height: int, width: int, exponent: float = 1.0, stretch: float = 1.0
) -> np.ndarray:
    """Gaussian noise with a 1/f**exponent amplitude spectrum: (H, W) float32, mean 0, deviation 1.

    `stretch` > 1 draws it out sideways. A cell is 2x2 pixels: a 256x256 transform serves any photo.
    """
    spectrum = rng.standard_normal((256, 129, 2), np.float32).view(np.complex64)[..., 0]
    field = np.fft.irfft2(spectrum * _frequencies(stretch) ** -exponent).astype(np.float32)
    field /= field.std()
    image = Image.fromarray(field)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, (0, 0, width / 2, height / 2)))


def palette_near(rng: np.random.Generator, *colours: tuple[float, float, float]) -> np.ndarray:
    """RGB colours (N, 3) in [0, 1] near the given HSV ones; one palette in eight or so is of any hue."""
    shift = rng.random() if rng.random() < 0.12 else rng.normal(0, 0.03)
    palette = []
    for hue, saturation, value in colours:
        saturation, value = np.clip(rng.normal([saturation, value], [0.1, 0.06]), 0.02, 1)
        palette.append(colorsys.hsv_to_rgb((hue + shift + rng.normal(0, 0.015)) % 1, saturation, value))
    return np.array(palette, np.float32)


def ramp(tone: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Colour a (H, W) tone in [0, 1] along the evenly spaced colours of a palette: (H, W, 3) float32."""
    steps, knots = np.linspace(0, 1, 512), np.linspace(0, 1, len(palette))
    table = np.stack([np.interp(steps, knots, channel) for channel in palette.T], 1).astype(np.float32)
    return table[(np.clip(tone, 0, 1) * 511).astype(np.int16)]


def grid(
    rng: np.random.Generator, height: int, width: int, cell: float, tilt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates u, v in cells, turned by up to `tilt` radians, random origin: (H, W) float32 each."""
    turn = rng.uniform(-tilt, tilt)
    x = (np.arange(width, dtype=np.float32)[None, :] + np.float32(rng.uniform(0, 999))) / np.float32(cell)
    y = (np.arange(height, dtype=np.float32)[:, None] + np.float32(rng.uniform(0, 999))) / np.float32(cell)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return c * x + s * y, c * y - s * x


# ---------------------------------------------------------------- backgrounds: (H, W, 3) float32 in [0, 1]


def _grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    greens = 255 * palette_near(rng, (0.28, 0.75, 0.2), (0.26, 0.65, 0.5), (0.22, 0.5, 0.85))
    image = Image.fromarray(ramp(0.2 + 0.1 * noise(rng, height, width), greens).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    blades = 1800
    length = rng.uniform(0.05, 0.15) * (height + width) / 2
    foot = np.sort(rng.uniform(-0.02, 1.2, blades)) * height  # far blades first, near ones over them
    left = rng.uniform(-0.1, 1.1, blades) * width
    lean = length * (rng.normal(0, 0.3) + rng.normal(0, 0.4, blades))
    rise = length * rng.uniform(0.4, 1.2, blades)
    inks = ramp(rng.beta(1.6, 2, (1, blades)), greens)[0].astype(int)
    lines = np.stack([left, foot, left + 0.3 * lean, foot - 0.6 * rise, left + lean, foot - rise], 1)
    thickness = max(1, round(length / 14))
    for line, ink in zip(lines.tolist(), inks.tolist(), strict=True):
        draw.line(line, tuple(ink), thickness)
    return np.asarray(image, np.float32) / 255


def _leaves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    hue = rng.choice([0.07, 0.11, 0.3])  # autumn or summer
    colours = 255 * palette_near(rng, *((hue + 0.03 * k, 0.75, 0.25 + 0.28 * k) for k in range(3)))
    size = rng.uniform(0.05, 0.09) * (height + width) / 2
    leaves = int(2.5 * height * width / size**2)
    image = Image.new("RGB", (width, height), tuple((colours[0] / 2).astype(int)))
    draw = ImageDraw.Draw(image)
    along = np.array([-1, -0.6, 0, 0.55, 1, 0.55, 0, -0.6])
    half_width = np.array([0, 0.36, 0.5, 0.34, 0, -0.34, -0.5, -0.36])
    turn = rng.uniform(0, 2 * np.pi, leaves)
    scale = size * rng.uniform(0.6, 1.2, leaves)
    outline = (scale * np.exp(1j * turn))[:, None] * (along + 1j * half_width * rng.uniform(0.7, 1.2))
    outline += (rng.uniform(0, width, leaves) + 1j * rng.uniform(0, height, leaves))[:, None]
    depth = np.linspace(0.45, 1, leaves)  # buried leaves are darker
    inks = ramp(rng.random((1, leaves)), colours)[0] * depth[:, None]
    for points, ink in zip(outline, inks, strict=True):
        corners = np.stack([points.real, points.imag], 1).ravel().tolist()
        draw.polygon(corners, tuple(ink.astype(int)), tuple((ink * 0.55).astype(int)))
        draw.line(corners[:2] + corners[8:10], tuple((ink * 0.7).astype(int)))
    return np.asarray(image, np.float32) / 255


def _masonry(
    rng: np.random.Generator, height: int, width: int, cell: float, aspect: float, shift: float, joint: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of stones, width / height = `aspect`: parity of row + column, tone, 0 in joints to 1 (H, W)."""
    u, v = grid(rng, height, width, cell, 0.25 if shift else np.pi)
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
    hues = (0.01, 0.05, 0.09)
    clay = palette_near(rng, *((rng.choice(hues), 0.6 - 0.05 * k, 0.35 + 0.22 * k) for k in range(3)))
    bricks = ramp(0.2 + 0.6 * tones + 0.12 * noise(rng, height, width, 0.6), clay)
    mortar = palette_near(rng, (0.1, 0.12, rng.choice([0.35, 0.75])))[0]
    return mortar + (bricks - mortar) * solid[..., None]


def _tiles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    parity, tones, solid = _masonry(rng, height, width, rng.uniform(24, 60), 1, 0, 0.02)
    hue, marble = rng.random(), np.abs(noise(rng, height, width, 1.4))
    glaze = palette_near(rng, (hue, 0.4, 0.3), (hue, 0.15, 0.9))
    tiles = ramp(0.08 + 0.75 * parity + 0.1 * tones + 0.12 * marble, glaze)
    return tiles * (0.45 + 0.55 * solid[..., None])


def _wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    u, v = grid(rng, height, width, rng.uniform(10, 28), np.pi)
    centre_u, centre_v = u.mean() + rng.normal(0, 20), v.mean() + rng.normal(0, 5)
    radius = np.hypot((u - centre_u) * np.float32(rng.uniform(0.1, 0.35)), v - centre_v)
    radius += 0.5 * noise(rng, height, width, 1.8)
    ring = radius % 1  # light early wood darkens slowly, then ends abruptly
    tone = 0.85 - 0.55 * ring**2 + 0.08 * noise(rng, height, width, 0.5)
    return ramp(tone, palette_near(rng, (0.05, 0.75, 0.2), (0.07, 0.65, 0.5), (0.09, 0.5, 0.8)))


def _water(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    u, v = grid(rng, height, width, rng.uniform(14, 32), 0.3)
    warp = noise(rng, height, width, 1.5, rng.uniform(1.3, 2.2))
    swell = np.sin(2 * np.pi * (v + 0.4 * u) + 3 * warp) + np.sin(4.6 * (1.3 * v - 0.5 * u) - 4 * warp)
    tone = 0.36 + 0.13 * swell + 0.1 * warp
    tone += np.clip(swell - 1.1, 0, 1) * 0.7  # glints on the crests
    hue = rng.uniform(0.47, 0.6)
    return ramp(tone, palette_near(rng, (hue, 0.85, 0.22), (hue, 0.65, 0.55), (hue, 0.1, 0.97)))


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    blue = palette_near(rng, (0.6, 0.7, 0.6), (rng.choice([0.56, 0.06]), 0.3, 0.9))  # by day or at dusk
    sky = ramp(np.linspace(0, 1, height)[:, None].repeat(width, 1), blue)
    puff = noise(rng, height, width, rng.uniform(1.5, 1.9), rng.uniform(1, 1.6))
    cover = np.clip(0.5 + 0.6 * (puff - rng.uniform(-0.4, 0.5)), 0, 1)
    cloud = ramp(1.1 - 0.3 * puff, palette_near(rng, (0.6, 0.12, 0.6), (0.1, 0.02, 1)))
    return sky + (cloud - sky) * (cover**1.5)[..., None]


def _sand(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    _, v = grid(rng, height, width, rng.uniform(22, 55), np.pi)
    warp = noise(rng, height, width, 2, 1.2)
    slope = (v + 0.45 * warp) % 1
    ripple = np.minimum(slope / 0.75, (1 - slope) / 0.25)  # long windward side, short steep lee
    tone = 0.35 + 0.35 * ripple + 0.06 * warp + 0.06 * rng.standard_normal((height, width), np.float32)
    return ramp(tone, palette_near(rng, (0.08, 0.55, 0.4), (0.1, 0.45, 0.75), (0.12, 0.3, 0.97)))


def _night(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    _, v = grid(rng, height, width, (height + width) / rng.uniform(2, 4), np.pi)
    haze = noise(rng, height, width, 1.5)
    band = np.exp(-(((v - v.mean() + rng.normal(0, 0.2)) / 0.35) ** 2))  # the Milky Way
    hue = rng.uniform(0.58, 0.8)
    tone = 0.2 + band * (0.35 + 0.18 * haze) + 0.05 * haze
    sky = ramp(tone, palette_near(rng, (hue, 0.8, 0.06), (hue, 0.6, 0.3), (hue + 0.1, 0.3, 0.75)))
    stars = np.zeros((height, width), np.float32)
    count = int(height * width / rng.uniform(150, 500))
    shine = rng.pareto(1.5, count) * 90 + 90
    stars[rng.integers(height, size=count), rng.integers(width, size=count)] = shine
    points = Image.fromarray(np.minimum(stars, 4000).astype(np.float32) / 16).convert("L")
    glow = np.asarray(points.filter(ImageFilter.GaussianBlur(1)), np.float32) * 0.12
    return sky + np.minimum(glow + np.minimum(stars / 400, 0.6), 1)[..., None]


# ---------------------------------------------------------------- outlines: complex numbers about the origin


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
    down = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [(16 * np.sin(t) ** 3 - 1j * down) / 16]


def _arrow(rng: np.random.Generator) -> list[np.ndarray]:
    neck, half = rng.uniform(-0.15, 0.15), rng.uniform(0.18, 0.28)
    side = np.array([1, neck + 0.7j, neck + 1j * half, -1 + 1j * half])
    return [np.concatenate([side, side[:0:-1].conj()])]


# What an object's outline is, then its holes. Their order is the class index.
OUTLINES: dict[str, Callable[[np.random.Generator], list[np.ndarray]]] = {
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
CLASSES = tuple(OUTLINES)

# Family k goes with class k.
FAMILIES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
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
BACKGROUNDS = tuple(FAMILIES)
