"""Make corrupted copies of photos in class folders, laid out like ImageNet-C.

    pip install -e '.[robustness]'
    python -m tools.corruptions --photos /data/val --out out/corrupted
    python -m train.evaluate robustness --checkpoint RUN/linear --set imagenet-c=out/corrupted

    OUT/CATEGORY/CORRUPTION/SEVERITY/CLASS/NAME.jpg    --size pixels a side
    OUT/corruptions.json    settings, packages, counts, photos left out; there once all copies are

As ImageNet-C was made: the short side brought to 8/7 of --size by bilinear interpolation, the central square,
the corruption, a JPEG of quality 85; EXIF orientation is not applied (Hendrycks and Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", 2019). The corruptions are those of the
package imagecorruptions-imaug. Released ImageNet-C is of other photos: its numbers do not compare with these.

A copy depends on the photo's path and pixels, its corruption and severity, --size, --seed and the packages
that the record names, never on workers, order or interruptions.
"""

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic
from dali_bgaug.orientation import read_orientation, stored
from tools.cli import ALL, default_workers, hold, pick, require, run, tool_parser
from tools.offline.photos import decode_photo, read_photo
from tools.synthetic.copies import copy_of, make_copies, reject_inside, summarise

VERSION = 1  # goes up whenever the same settings give other pixels
CATEGORIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
"""ImageNet-C's corruptions, in its order; the last four do not count in its numbers."""
CATEGORY = {corruption: category for category, names in CATEGORIES.items() for corruption in names}
STANDARD = tuple(corruption for corruption, category in CATEGORY.items() if category != "extra")
SEVERITIES = (1, 2, 3, 4, 5)
QUALITY = 85
PACKAGE = "imagecorruptions-imaug"
_PIXELS_FROM = (PACKAGE, "numpy", "scipy", "scikit-image", "numba", "pillow")
_OWN_SEED = ("impulse_noise", "glass_blur")
"""These draw a fresh seed of their own unless one is given; the others draw from NumPy's global state."""
_SMALLEST = 32  # pixels a side that the package takes
_WRITERS = 8  # files on their way to the disk at a time


@dataclass(frozen=True, kw_only=True)
class Corruptions:
    """The corruptions of a run."""

    names: tuple[str, ...] = STANDARD
    """In the order of CATEGORIES."""
    severities: tuple[int, ...] = SEVERITIES
    size: int = 224
    """Of copies, pixels a side."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.names:
            known = f"'all', {', '.join((*CATEGORIES, *CATEGORY))}"
            require(name in CATEGORY, f"--corruptions: there is no corruption '{name}'; there are {known}")
        for severity in self.severities:
            require(severity in SEVERITIES, f"--severities={severity}: must be 1 to 5")
        require(self.names and self.severities, "give one corruption and one severity at least")
        require(self.size >= _SMALLEST, f"--size={self.size}: must be at least {_SMALLEST} pixels")
        require(self.seed >= 0, f"--seed={self.seed}: must be 0 or more")
        object.__setattr__(self, "names", tuple(name for name in CATEGORY if name in self.names))
        object.__setattr__(self, "severities", tuple(sorted(set(self.severities))))

    def of(self, key: str, out: Path) -> Iterator[tuple[Path, str, int]]:
        """The copies of a photo: where each is, its corruption, its severity."""
        for name in self.names:
            for severity in self.severities:
                place = out / CATEGORY[name] / name / str(severity) / copy_of(key, ".jpg")
                yield place, name, severity


def make_corrupted(photos: Path, out: Path, corruptions: Corruptions, workers: int = 1) -> dict[str, Any]:
    """Make the copies, or the rest of them after an interruption; nothing if they are complete.

    Returns:
        What corruptions.json holds: the settings, versions of packages, and `photos`, `counts`, `left_out` as
        `make_copies` describes them, `copies` in all.

    Raises:
        UserError: no such package; `photos` are no class folders; and see `make_copies`.
    """
    reject_inside(out, photos)
    from dali_bgaug.folder import open_folder  # imports torch, which workers do without

    packages = _versions()
    tree = open_folder(photos, "--photos")
    print(tree.describe())
    settings = {
        "version": VERSION,
        "corruptions": list(corruptions.names),
        "severities": list(corruptions.severities),
        "size": corruptions.size,
        "quality": QUALITY,
        "seed": corruptions.seed,
        "photos_digest": tree.digest,
        **packages,
    }
    jobs = [(key, photos, out, corruptions) for key in tree.files]
    record = out / "corruptions.json"
    return make_copies(record, "corrupted copies", settings, _write_copies, jobs, workers)


def _versions() -> dict[str, str]:
    """Versions of the packages that pixels come from; a UserError says what to install."""
    remedy = f"install {PACKAGE}: pip install -e '.[robustness]'"
    try:
        versions = {name: version(name) for name in _PIXELS_FROM}
    except PackageNotFoundError:
        other = "; the package imagecorruptions, of the same import name, fails with today's NumPy"
        raise UserError(f"tools.corruptions: {PACKAGE} is not there{other}; {remedy}") from None
    try:
        _package()
    except ImportError as error:
        raise UserError(
            f"tools.corruptions: {PACKAGE} cannot be imported ({error}); on a machine without a screen take "
            "pip install opencv-python-headless in place of opencv-python"
        ) from error
    return versions | {"opencv": importlib.import_module("cv2").__version__}


def _package() -> ModuleType:
    """The package of corruptions, which computes in one thread: the processes are the parallelism."""
    importlib.import_module("cv2").setNumThreads(1)
    return importlib.import_module("imagecorruptions")


def corrupt(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """A corrupted image, uint8 [H, W, 3], the same for the same seed (0 to 2**32 - 1).

    image: uint8 [H, W, 3], at least 32 pixels a side. Sets the seed of NumPy's global state.
    """
    np.random.seed(seed)
    own = {"seed": seed} if name in _OWN_SEED else {}
    with redirect_stdout(None):  # zoom_blur and snow tell of sizes they had to mend
        return _package().corrupt(image, severity=severity, corruption_name=name, **own)


def seed_of(seed: int, key: str, name: str, severity: int) -> int:
    """The seed of one copy, 0 to 2**32 - 1, by the run's seed, the photo's path, corruption and severity."""
    digest = hashlib.sha256(f"{seed}/{name}/{severity}/{key}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def crop(image: Image.Image, size: int) -> np.ndarray:
    """The central square of a photo whose short side is 8/7 of it, uint8 [size, size, 3]."""
    short = min(image.size)
    resized = round(size * 8 / 7)
    width, height = (resized if side == short else int(resized * side / short) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _write_copies(key: str, photos: Path, out: Path, corruptions: Corruptions) -> None:
    """The copies of one photo that are not there yet."""
    todo = [copy for copy in corruptions.of(key, out) if not copy[0].exists()]
    if not todo:  # from a run that was interrupted
        return
    path = photos / key
    data = read_photo(path)
    square = crop(stored(decode_photo(data, path), read_orientation(data)), corruptions.size)
    with ThreadPoolExecutor(_WRITERS) as pool:  # some of the time passes waiting for the disk
        writing = []
        for place, name, severity in todo:
            seed = seed_of(corruptions.seed, key, name, severity)
            try:
                copy = corrupt(square, name, severity, seed)
            except Exception as error:  # the package's own code
                raise UserError(f"{path}: {name} {severity} fails ({error!r}); take it out") from error
            writing.append(pool.submit(_write, place, copy))
        for written in writing:
            written.result()


def _write(path: Path, pixels: np.ndarray) -> None:
    with atomic(path) as temporary:
        Image.fromarray(pixels).save(temporary, "JPEG", quality=QUALITY, optimize=True)


def read_names(words: Sequence[str]) -> tuple[str, ...]:
    """Corruptions by their names, by categories, or `all`, which are the fifteen that count."""
    groups = {"all": STANDARD, **CATEGORIES}
    return tuple(name for word in words for name in groups.get(word, (word,)))


def main() -> None:
    parser = tool_parser("tools.corruptions", __doc__)
    add = parser.add_argument
    default = Corruptions()
    add("--photos", type=Path, required=True, help="folder of class folders of photos")
    add("--out", type=Path, required=True, help="folder of the copies, new or interrupted")
    what = f"all (the fifteen that count), categories ({', '.join(CATEGORIES)}) or names (%(default)s)"
    add("--corruptions", nargs="+", default=["all"], metavar="NAME", help=what)
    add("--severities", nargs="+", type=int, default=default.severities, metavar="N", help="1 to 5 (all)")
    add("--size", type=int, default=default.size, help="of copies, pixels a side (%(default)s)")
    add("--seed", type=int, default=default.seed, help="of noise and weather (%(default)s)")
    add("--workers", type=int, help="processes (all CPUs)")
    args = parser.parse_args()
    options = pick(args, "severities", "size", "seed")
    corruptions = Corruptions(names=read_names(args.corruptions), **options)
    with hold(args.out, ALL):
        result = make_corrupted(args.photos, args.out, corruptions, args.workers or default_workers())
    kinds = f" under {len(result['corruptions'])} corruptions of {len(result['severities'])} severities"
    summarise(args.out / "corruptions.json", result, kinds, "imagenet-c")


if __name__ == "__main__":
    run(main)
