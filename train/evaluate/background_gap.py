"""How much does a classifier lean on backgrounds? Its accuracy where these are swapped, or all there is.

Folders are laid out as ImageNet-9's (Xiao et al. 2020, "Noise or Signal"); `tools.background_challenge` makes
them of other sets:

    ROOT/SPLIT/val/CLASS/….jpg      or ROOT/SPLIT/CLASS/….jpg

BG-Gap is the accuracy on mixed_same minus that on mixed_rand; lower is better.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dali_bgaug.errors import UserError
from dali_bgaug.files import require_folder
from dali_bgaug.folder import CHALLENGE
from pipelines import open_data
from train import distributed
from train.evaluate.features import batches, evaluation_data

NONE = -1
"""In a class map: a class that is none of the folders'."""


def find_splits(root: Path) -> dict[str, Path]:
    """The splits that are there, by name.

    Raises:
        UserError: there is none of them.
    """
    require_folder(root, "--data")
    found = {}
    for split in CHALLENGE:
        inner, outer = root / split / "val", root / split
        if outer.is_dir():
            found[split] = inner if inner.is_dir() else outer
    if not found:
        raise UserError(
            f"--data={root}: has none of the folders {', '.join(CHALLENGE)}; give ImageNet-9's folder, or "
            "one that `python -m tools.background_challenge` made"
        )
    return found


def read_class_map(path: Path | None, classes: list[str], folders: list[str]) -> torch.Tensor:
    """Which folder a classifier's class belongs to: int64 [len(classes)], NONE for those that belong to none.

    Args:
        path: JSON, {class: folder}; a class is its name or its number, a folder its name, its number or -1.
            ImageNet-9's `in_to_in9.json` is one. None: the classes are the folders, by name.
        classes: the classifier's, in order of its outputs.
        folders: the class folders, sorted.

    Raises:
        UserError: classes without an entry, folders that do not exist, or, without a map, other classes than
            folders.
    """
    if path is None:
        if classes != folders:
            only = sorted(set(classes) ^ set(folders))
            raise UserError(
                f"the classifier has {len(classes)} classes, the folders are {len(folders)} (only in one of "
                f"them: {_few(only)}); give --class-map=FILE, which says what belongs to what"
            )
        return torch.arange(len(classes))
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--class-map={path}: cannot be read as JSON ({error})") from error
    if not isinstance(entries, dict):
        raise UserError(f"--class-map={path}: expected {{class: folder}}, found a {type(entries).__name__}")
    missing = [
        name for number, name in enumerate(classes) if name not in entries and str(number) not in entries
    ]
    if missing:
        raise UserError(
            f"--class-map={path}: has {len(entries)} entries, the classifier {len(classes)} classes; "
            f"none for {_few(missing)}"
        )
    chosen = [entries.get(name, entries.get(str(number))) for number, name in enumerate(classes)]
    places = {name: number for number, name in enumerate(folders)}
    values = [places.get(value, value) if isinstance(value, str) else value for value in chosen]
    wrong = [
        v for v in values if isinstance(v, bool) or not isinstance(v, int) or not NONE <= v < len(folders)
    ]
    if wrong:
        raise UserError(
            f"--class-map={path}: {wrong[0]!r} is no folder; there are {len(folders)}: {_few(folders)}; "
            f"{NONE} means none"
        )
    return torch.tensor(values)


def _few(names: list[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


@torch.no_grad()
def background_gap(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    classes: list[str],
    trained: dict[str, Any],
    root: Path,
    device: torch.device,
    *,
    class_map: Path | None = None,
    words: list[str] | None = None,
) -> dict[str, Any]:
    """Accuracy on every split that is there; every rank must call this.

    Args:
        classifier: images [n, 3, H, W] on `device` -> logits [n, len(classes)].
        classes: its classes' names.
        trained: the `data` section of the backbone's run.
        root: the folder of splits.
        class_map: see `read_class_map`. The most likely of all classes counts, mapped, as in ImageNet-9.
        words: `key=value` of the loader's config.

    Returns:
        `splits`, accuracy and photos by name, and `bg_gap`, None without both mixed splits.
    """
    places = find_splits(root)
    sets = {split: open_data(place, False, f"--data: {split}") for split, place in places.items()}
    maps = {split: read_class_map(class_map, classes, data.classes) for split, data in sets.items()}
    splits = {}
    for split, place in places.items():
        to_folder = maps[split].to(device)
        counts = torch.zeros(2, dtype=torch.double, device=device)
        for images, labels in batches(
            evaluation_data(trained, place, f"--data: {split}", words or ()), device, split
        ):
            right = to_folder[classifier(images).argmax(dim=1)] == labels
            counts += torch.stack([right.sum(), torch.full_like(right.sum(), len(labels))])
        right, photos = map(int, distributed.sum_over_ranks(counts).tolist())
        splits[split] = {"accuracy": round(right / photos, 4), "photos": photos}
    gap = None
    if {"mixed_same", "mixed_rand"} <= set(splits):
        gap = round(splits["mixed_same"]["accuracy"] - splits["mixed_rand"]["accuracy"], 4)
    return {"bg_gap": gap, "splits": splits}
