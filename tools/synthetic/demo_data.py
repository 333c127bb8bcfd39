"""Make a small photo-like data set with exact foreground masks, for demos, tests and benchmarks.

Every photo shows one object, whose outline is its class, before a background texture of one of as many
families. In `train` the family usually is the one that goes with the class, so a self-supervised model can
cheat by matching backgrounds, as it can on real photos. `mixed_same` and `mixed_rand` measure how much it
did: the same objects on their own class's backgrounds and on those of any class (ImageNet-9's splits).

    python -m tools.demo_data --out out/demo/data

    OUT/{train,mixed_same,mixed_rand}/CLASS/CLASS_00000.jpg    photos, 200 to 500 pixels a side
    OUT/masks/{train,mixed_same,mixed_rand}/CLASS/....png      8-bit, 255 where the object covers half or more
    OUT/labels.csv                                             path,label,class,background
    OUT/demo.json                                              the settings; there once the set is complete

A photo depends on the settings, its split and its index alone, never on the number of workers.
"""

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tools.cli import default_workers, process, require, run, tool_parser
from tools.synthetic import demo_shapes as shapes
from tools.synthetic.demo_shapes import BACKGROUNDS, CLASSES, FAMILIES, OUTLINES
from tools.synthetic.settings import read_finished

VERSION = 1  # goes up whenever the same settings give other pixels
_JPEG_QUALITY = 90
_SUPERSAMPLING = 4  # sub-pixels a side from which a pixel's coverage is counted
_CHUNK = 25  # photos a job
# Random streams (foreground, background) of each split: the mixed splits share their foregrounds.
_STREAMS = {"train": (0, 1), "mixed_same": (2, 3), "mixed_rand": (2, 4)}


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """The content of a demo set; two sets with equal settings are equal byte for byte."""

    photos: int = 2000
    """Training photos, spread evenly over the classes."""
    test_photos: int = 200
    """Photos in each of the two mixed splits."""
    classes: int = 9
    """Classes in use, 2 to 9; background families are as many."""
    correlation: float = 0.9
    """Share of training photos whose background family is the one of their class."""
    material: float = 0.0
    """Share of photos whose object is of its class's material: a hue and a pattern, as lemons are yellow.
    Else the outline alone tells an object's class, which takes longer to learn than small runs last."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = self.classes
        require(2 <= least <= len(CLASSES), f"--classes is {least}: give 2 to {len(CLASSES)}")
        for option, value in (("--photos", self.photos), ("--test-photos", self.test_photos)):
            require(value >= least, f"{option} is {value}: give at least one a class, {least} or more")
        for option, share in (("--correlation", self.correlation), ("--material", self.material)):
            require(0 <= share <= 1, f"{option} is {share}: give a share, 0 to 1")
        require(self.seed >= 0, f"--seed is {self.seed}: give 0 or more")


@dataclass(frozen=True)
class Photo:
    """One photo of the plan: what it will show, before anything is drawn."""

    split: str
    index: int
    label: int
    """Index into CLASSES."""
    family: int
    """Index into BACKGROUNDS; family k is the one that goes with class k."""
    own_material: bool = False
    """Whether the object is made of its class's material, or of any."""

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
    for split, (foreground, stream) in _STREAMS.items():
        for index in range(settings.photos if split == "train" else settings.test_photos):
            rng = np.random.default_rng([settings.seed, stream, index, 0])
            label = index % settings.classes
            family = label
            if split == "mixed_rand":
                family = int(rng.integers(settings.classes))
            elif split == "train" and rng.random() >= settings.correlation:
                family = int(label + rng.integers(1, settings.classes)) % settings.classes
            material = np.random.default_rng([settings.seed, foreground, index, 3]).random()
            photos.append(Photo(split, index, label, family, bool(material < settings.material)))
    return sorted(photos, key=lambda photo: photo.path)


# ---------------------------------------------------------------- photos


def _silhouette(rng: np.random.Generator, name: str, height: int, width: int) -> tuple[Image.Image, float]:
    """Place an object: 255 x the share of each pixel it covers (mode L), its longest extent in pixels."""
    sides = np.array([width, height])
    while True:  # until the object fills a fair share of the photo
        wide = rng.random() < 0.06  # reaches nearly everywhere: no strip of background is left
        reach = rng.uniform(0.85, 1.05) if wide else rng.uniform(0.25, 0.65)
        spill = 0.15 if rng.random() < 0.15 else 0.0  # part of the object that may be cut off
        stretch, turn = np.exp(rng.uniform(-0.22, 0.22)), np.exp(2j * np.pi * rng.random())
        rings = [(ring.real * stretch + 1j * ring.imag / stretch) * turn for ring in OUTLINES[name](rng)]
        rings = [np.stack([ring.real, ring.imag], 1) for ring in rings]
        low, extent = rings[0].min(0), np.ptp(rings[0], 0)
        scale = reach * (sides / extent if wide else sides.min() / extent.max())
        extent = extent * scale
        corner = (sides - extent) * rng.random(2) + spill * extent * rng.choice([-1, 1], 2)
        canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
        draw = ImageDraw.Draw(canvas)
        for ring, ink in zip(rings, (255, 0), strict=False):
            draw.polygon((((ring - low) * scale + corner) * _SUPERSAMPLING).ravel().tolist(), ink)
        coverage = canvas.reduce(_SUPERSAMPLING)
        if 0.03 <= np.mean(np.asarray(coverage) > 127) <= 0.45:
            return coverage, float(extent.max())


def _surface(rng: np.random.Generator, height: int, width: int, material: int | None) -> np.ndarray:
    """Paint for an object, of no colour or pattern in particular, or of a class's: (H, W, 3) float32."""
    hue, cell = rng.random(), rng.uniform(8, 40)
    u, v = (np.sin(2 * np.pi * axis) for axis in shapes.grid(rng, height, width, cell, np.pi))
    kind = rng.integers(3)
    if material is not None:
        hue, kind = (material + 0.54 * (hue - 0.5)) / len(CLASSES), material % 3
    pattern = (np.zeros_like(u), 2 * u, 4 * u * v)[kind]  # plain, striped or spotted
    tone = (
        0.5
        + rng.uniform(0.05, 0.25) * pattern
        + rng.uniform(0.03, 0.15) * shapes.noise(rng, height, width, 1.2)
    )
    other, vivid = hue + rng.normal(0, 0.12), rng.uniform(0.2, 0.9)
    if material is not None:
        vivid = (1 + vivid) / 2  # so that a hue can be told
    dark = rng.uniform(0.25, 0.7)
    return shapes.ramp(
        tone, shapes.palette_near(rng, (hue, vivid, dark), (hue, vivid, dark + 0.2), (other, vivid / 2, 0.95))
    )


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

    paint = FAMILIES[BACKGROUNDS[photo.family]]
    scene = paint(np.random.default_rng([seed, background, photo.index, 2]), height, width)
    drop = rng.uniform(0.04, 0.12) * size
    shadow = _blurred(coverage, 0.6 * drop + 1, (away[0] * drop, away[1] * drop))
    scene = scene * (1 - rng.uniform(0.35, 0.7) * shadow)[..., None]

    rim = rng.uniform(0.05, 0.12) * min(size, 200)  # the object's edge is rounded off as far in as this
    lit = _blurred(coverage, rim, (away[0] * rim, away[1] * rim)) - _blurred(coverage, rim)
    material = photo.label if photo.own_material else None
    body = _surface(rng, height, width, material) * (1 - rng.uniform(0.5, 1) * lit)[..., None]
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
            picture.save(content := io.BytesIO(), **options)
            _write(out / path, content.getvalue())


def write_demo_set(out: Path, settings: DemoSettings, workers: int) -> None:
    """Write the set below `out`, or the rest of it after an interruption; nothing if it is complete.

    Raises UserError if `out` holds anything else, a set of other settings included.
    """
    finished, started = out / "demo.json", out / "demo.json.unfinished"
    wanted = {"version": VERSION, **asdict(settings)}
    if read_finished(finished, started, wanted, "a demo set", material=0.0):
        return
    _write(started, (json.dumps(wanted, indent=2) + "\n").encode())
    photos = plan(settings)
    chunks = [photos[start : start + _CHUNK] for start in range(0, len(photos), _CHUNK)]
    jobs = ((out, chunk, settings.seed) for chunk in chunks)
    for _ in process(_write_photos, jobs, list(map(len, chunks)), workers, "demo photos"):
        pass
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["path", "label", "class", "background"])
    rows.writerows([p.path, p.label, CLASSES[p.label], BACKGROUNDS[p.family]] for p in photos)
    _write(out / "labels.csv", table.getvalue().encode())
    started.rename(finished)


def main() -> None:
    default = DemoSettings()
    parser = tool_parser("tools.demo_data", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the set, new or interrupted")
    add("--photos", type=int, default=default.photos, help="training photos")
    add("--test-photos", type=int, default=default.test_photos, help="photos a mixed split")
    add("--classes", type=int, default=default.classes, help="2 to 9")
    what = "share of backgrounds that fit the class"
    add("--correlation", type=float, default=default.correlation, help=what)
    what = "share of objects made of their class's stuff"
    add("--material", type=float, default=default.material, help=what)
    add("--seed", type=int, default=default.seed)
    add("--workers", type=int, default=default_workers(), help="processes")
    options = vars(parser.parse_args())
    out, workers = options.pop("out"), options.pop("workers")
    write_demo_set(out, DemoSettings(**options), workers)


if __name__ == "__main__":
    run(main)
