"""Columns of a report: what was measured on which set, in an order that is always the same."""

from typing import NamedTuple

from train.evaluate.background_gap import SPLITS
from train.evaluate.robustness import imagenet

LABELS = "Labels and neighbours"
TRANSFER = "Transfer"
SHIFTS = "Other photos"
CORRUPTIONS = "ImageNet-C"
ATTACK = "FGSM and shape bias"
BACKGROUNDS = "ImageNet-9"
OWN = "Own sets"
GROUPS = (LABELS, TRANSFER, SHIFTS, CORRUPTIONS, ATTACK, BACKGROUNDS, OWN)
CATEGORIES = tuple(imagenet.CORRUPTIONS)
ONLY_FOREGROUND = "only-fg-imagenet-a"
_LOWER = ("mce", "bg_gap")


class Column(NamedTuple):
    """A column."""

    key: str
    """The protocol or the set, and after a slash which of its numbers: `imagenet-c/noise`."""
    title: str
    group: str
    photos: int | None = None
    """The size of the public set, if it is one."""

    @property
    def lower(self) -> bool:
        """Whether lower is better."""
        return self.key.rpartition("/")[2].removesuffix(" fast") in _LOWER

    @property
    def heading(self) -> str:
        """The title, marked where lower is better."""
        return f"{self.title} ↓" if self.lower else self.title


def _corruptions(name: str, title: str, group: str, photos: int | None = None) -> list[Column]:
    parts = [Column(f"{name}/{part}", f"{title} {part}", group, photos) for part in CATEGORIES]
    mean = Column(name, f"{title} mean" if photos else title, group, photos)
    return [*parts, mean, Column(f"{name}/mce", f"{title} mCE", group, photos)]


def _backgrounds(name: str, suffix: str = "") -> list[Column]:
    keys = [*SPLITS, "bg_gap"]
    titles = {"bg_gap": "BG-gap"} | {split: split.replace("_", " ") for split in SPLITS}
    return [Column(f"{name}/{key}{suffix}", f"{titles[key]}{suffix}", BACKGROUNDS, 4050) for key in keys]


def _transfer(name: str, title: str, photos: int) -> list[Column]:
    own = Column(name, title, TRANSFER, photos)
    return [own, Column(f"{name}-bn-train", f"{title}, BN train", TRANSFER, photos)]


_VALIDATION = 50_000
_KNOWN = (
    Column("linear", "linear", LABELS, _VALIDATION),
    Column("linear-bn-train", "linear, BN train", LABELS, _VALIDATION),
    Column("linear-bn-eval", "linear, BN eval", LABELS, _VALIDATION),
    Column("linear-fast", "linear, fast", LABELS, _VALIDATION),
    Column("knn", "k-NN", LABELS, _VALIDATION),
    Column("finetune-1percent", "1 %", LABELS, _VALIDATION),
    Column("finetune-1percent-any-subset", "1 %, any subset", LABELS, _VALIDATION),
    Column("finetune-10percent", "10 %", LABELS, _VALIDATION),
    Column("finetune-10percent-any-subset", "10 %, any subset", LABELS, _VALIDATION),
    *_transfer("cifar10", "CIFAR-10", 10_000),
    *_transfer("cifar100", "CIFAR-100", 10_000),
    *_transfer("places205", "Places-205", 20_500),
    Column("real/top1", "validation", SHIFTS, _VALIDATION),
    Column("real", "ReaL", SHIFTS, 46_837),
    Column("imagenet-v2/matched-frequency", "v2 MF", SHIFTS, 10_000),
    Column("imagenet-v2/threshold0.7", "v2 T0.7", SHIFTS, 10_000),
    Column("imagenet-v2/top-images", "v2 TI", SHIFTS, 10_000),
    Column("objectnet", "ObjectNet", SHIFTS, 18_574),
    Column("imagenet-a", "ImageNet-A", SHIFTS, 7_500),
    Column(ONLY_FOREGROUND, "Only-FG ImageNet-A", SHIFTS, 7_500),
    Column("imagenet-r", "ImageNet-R", SHIFTS, 30_000),
    *_corruptions("imagenet-c", "C", CORRUPTIONS, 3_750_000),
    Column("fgsm", "FGSM", ATTACK, _VALIDATION),
    Column("cue-conflict", "shape bias", ATTACK, 1_200),
    *_backgrounds("imagenet-9"),
    *_backgrounds("imagenet-9", " fast"),
)
_BY_KEY = {column.key: (number, column) for number, column in enumerate(_KNOWN)}


def column_of(key: str) -> Column:
    """The column of a key; one that is none of the public sets' is the user's own."""
    if key in _BY_KEY:
        return _BY_KEY[key][1]
    name, _, part = key.rpartition("/")
    return Column(key, f"{name} {'mCE' if part == 'mce' else part}" if name else key, OWN)


def own_key(name: str, protocol: str) -> str:
    """The key of a set by the name that its user gave it; a slash is no part of it, and what is called like
    another protocol's column, but is not, has a key of its own."""
    name = name.replace("/", "-")
    is_known = any(key.partition("/")[0] == name for key in _BY_KEY)
    return f"set {name}" if is_known and name not in (protocol, ONLY_FOREGROUND) else name


def in_order(keys: set[str]) -> list[Column]:
    """The columns of some keys: the public sets' first, then the user's own by name."""

    def place(key: str) -> tuple[int, str, int]:
        if key in _BY_KEY:
            return _BY_KEY[key][0], "", 0
        name, _, part = key.rpartition("/")
        parts = ("", *CATEGORIES, "mce")
        return len(_KNOWN), name or part, parts.index(part) if name and part in parts else 0

    return [column_of(key) for key in sorted(keys, key=lambda key: (*place(key), key))]
