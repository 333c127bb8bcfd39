"""ObjectNet (Barbu et al. 2019): objects in unusual views, of which 113 classes are ImageNet's too.

ROOT/images/FOLDER/….png, ROOT/mappings/…: a folder has a label, a label one to three ImageNet labels, each of
these a class. Three metrics are in use, far apart; all come from one pass, over the photos of the 113 alone.
"""

from pathlib import Path
from typing import Any

from dali_bgaug.errors import some
from dali_bgaug.files import digest
from dali_bgaug.photo_tree import class_of
from train.evaluate.robustness.imagenet import WNIDS, imagenet_columns
from train.evaluate.robustness.scores import Accuracy, Criterion, several, single
from train.evaluate.robustness.source import Found, Source, list_class_folders, read_map, set_counts

BORDER = 2
"""Pixels of the red frame that published photos have."""
PHOTOS, CLASSES = 18_574, 113
"""Of ImageNet's classes; the whole set has 50 273 of 313."""
EXPECTED = "ObjectNet (images/FOLDER/….png and mappings/, or the images folder of these)"


def open_objectnet(source: Source) -> list[Found]:
    """The photos of folders that have ImageNet classes."""
    columns = imagenet_columns(source.network, source.name)
    inner = source.folder / "images"
    folder = inner if inner.is_dir() else source.folder
    tree = list_class_folders(source, EXPECTED, folder)
    maps = source.truths("mappings", "unpack all of ObjectNet")
    of_label = _classes_of_labels(source, maps)
    classes = _classes_of_folders(source, maps, tree.classes, of_label)
    files = [key for key in tree.keys if classes[class_of(key)]]
    if not files:
        raise source.misfit(EXPECTED, tree)
    truths = [classes[class_of(key)] for key in files]
    found = {"photos": len(files), "classes": len({class_of(key) for key in files})}
    asked = sorted({number for numbers in of_label.values() for number in numbers})
    record = set_counts(source, tree, found, {"photos": PHOTOS, "classes": CLASSES})
    record |= {
        **{"maps": str(maps), "maps_digest": digest(classes, asked)},
        "outside": {
            "photos": len(tree.keys) - found["photos"],
            "classes": len(tree.classes) - found["classes"],
        },
    }
    any_of = several([columns[numbers].tolist() for numbers in truths])
    criteria = [
        Criterion("first_of_1000", columns, single([columns[numbers[0]] for numbers in truths])),
        Criterion("any_of_1000", columns, any_of),
        Criterion(f"any_of_{len(asked)}", columns[asked], any_of),
    ]
    metric = "top-1 accuracy over 1000 classes, right is the first ImageNet class of the photo's folder"
    return [Found(files, Accuracy(criteria, metric), record, folder)]


def _classes_of_folders(
    source: Source, maps: Path, folders: list[str], of_label: dict[str, list[int]]
) -> dict[str, list[int]]:
    """The ImageNet classes of folders, in the order in which the map has them; [] of those that have none.

    Raises:
        UserError: folders that the map does not have.
    """
    labels = read_map(source, maps / "folder_to_objectnet_label.json", dict)
    if unknown := [folder for folder in folders if folder not in labels]:
        raise source.fault(
            f"{len(unknown)} of its {len(folders)} folders are not in {maps}/folder_to_objectnet_label.json: "
            f"{some(unknown)}; give the folders as ObjectNet has them, and its own maps"
        )
    if wrong := [folder for folder in folders if not isinstance(labels[folder], str)]:
        raise source.fault(
            f"{maps}/folder_to_objectnet_label.json: {some(wrong)} has no label but {labels[wrong[0]]!r}; "
            "take it from ObjectNet again"
        )
    return {folder: of_label.get(labels[folder], []) for folder in folders}


def _classes_of_labels(source: Source, maps: Path) -> dict[str, list[int]]:
    """ImageNet's classes by ObjectNet's labels.

    Raises:
        UserError: a label of ImageNet that is none, or two classes' (crane, maillot).
    """
    path = maps / "objectnet_to_imagenet_1k.json"
    by_label = _imagenet_labels(source, maps)
    found = {}
    for label, names in read_map(source, path, dict).items():
        # Commas stand within labels, "; " between them.
        found[label] = [_class_of_label(source, path, name, by_label) for name in str(names).split("; ")]
    return found


def _class_of_label(source: Source, path: Path, name: str, by_label: dict[str, list[int]]) -> int:
    if name.isdecimal() and int(name) < len(WNIDS):
        return int(name)
    classes = by_label.get(name.strip(), [])
    if len(classes) == 1:
        return classes[0]
    if classes:
        numbers = " and ".join(f"{number} ({WNIDS[number]})" for number in classes)
        raise source.fault(f"{path}: {name!r} is the label of classes {numbers}; write the number of one")
    raise source.fault(f"{path}: {name!r} is no label of ImageNet's; take the map from ObjectNet again")


def _imagenet_labels(source: Source, maps: Path) -> dict[str, list[int]]:
    """ImageNet's classes by their labels, in either spelling of the maps: a file of lines and the line of
    every class, or the label of every class."""
    lines, whole = maps / "pytorch_to_imagenet_2012_id.json", maps / "imagenet_to_labels.json"
    if not (lines.is_file() or whole.is_file()):
        raise source.fault(f"{maps} has neither {lines.name} nor {whole.name}; give ObjectNet's own maps")
    if lines.is_file():
        text = maps / "imagenet_to_label_2012_v2"
        try:
            labels = text.read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise source.fault(f"{text}: cannot be read ({error}); take it from ObjectNet again") from error
        pairs = read_map(source, lines, dict)
        path, entries = lines, {key: labels[line] for key, line in pairs.items() if _is_line(line, labels)}
    else:
        path, entries = whole, read_map(source, whole, dict)
    if set(entries) != set(map(str, range(len(WNIDS)))):
        raise source.fault(
            f"{path}: is no map of ImageNet's {len(WNIDS)} classes; take it from ObjectNet again"
        )
    found: dict[str, list[int]] = {}
    for number in range(len(WNIDS)):
        found.setdefault(str(entries[str(number)]).strip(), []).append(number)
    return found


def _is_line(number: Any, lines: list[str]) -> bool:
    return type(number) is int and 0 <= number < len(lines)
