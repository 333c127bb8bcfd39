"""The class of every photo: of its folder, or of a list.

Labels that come out wrong look like any others, so a list of several kinds of lines, or of none, is an error.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_bgaug import shards
from dali_bgaug.errors import UserError, some
from dali_bgaug.photo_tree import Oddity, class_of, normal
from tools.offline.lists import Line, Names, Photos, file_of, read_lines, unmatched

_HEADERS = frozenset(
    ["class", "classes", "folder", "id", "label", "labels", "name", "names", "synset", "synsets", "wnid"]
)
_LABEL = re.compile(r"[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Labels(NamedTuple):
    """The labels of N photos."""

    label: np.ndarray
    """int64 [N]: indices into `classes`."""
    classes: list[str]
    oddities: Mapping[str, Oddity] = {}
    """Of the list: what matches nothing."""


def read_classes(path: Path | None, keys: Sequence[str]) -> Labels:
    """The class of every photo.

    Without a file a photo's class is the first folder of its path, and names are sorted. In a file, lines are

        CLASS          the name of a class folder, which may have blanks: labels are in the order of lines
        WNID words     the same, as in ImageNet's LOC_synset_mapping.txt: the words are not used
        PHOTO CLASS    a photo (its path, or its file's name) and its class after a blank or tab. If all are
                       numbers of up to six digits, these are the labels; else they are names, and sorted

    Raises:
        UserError: lines of several kinds, or of none; numbers that are no labels; a photo without a class.
    """
    folders = [class_of(key) for key in keys]
    if path is None:
        return _number(folders, sorted(set(folders)))
    option = f"--classes={path}"
    lines = read_lines(path, "--classes")
    photos = Photos(keys)
    pairs = [_split(line.text, photos) for line in lines]
    if any(photos.find(photo) for photo, _ in pairs):
        return _by_photo(option, lines, pairs, keys, photos)
    return _by_folder(option, lines, folders, keys)


def _by_folder(option: str, lines: list[Line], folders: list[str], keys: Sequence[str]) -> Labels:
    known = Names({name for name in folders if name})
    words = [line.text.split() for line in lines]
    found = [known.find(line.text) for line in lines]
    firsts = [known.find(each[0]) for each in words]
    several = [(line, its, *names) for line, its, *names in zip(lines, words, found, firsts) if len(its) > 1]
    described = [line for line, _, whole, first in several if whole is None and first is not None]
    if described:
        for line, its, whole, _ in several:
            if whole is not None:
                raise UserError(
                    f"{option}: {line} is a class folder, of {described[0]} the first word alone; give "
                    "folders' names alone"
                )
            if _NUMBER.fullmatch(its[1]):
                raise UserError(
                    f"{option}: {line}: a number follows the class, but labels are in the order of lines; "
                    "give the folders' names alone, in that order"
                )
        found, named = firsts, [each[0] for each in words]
    else:
        named = [line.text.strip() for line in lines]
    unknown = [line for line, name in zip(lines, found, strict=True) if name is None]
    if len(unknown) == len(lines):
        raise _nothing(option, lines, folders, keys)
    if unknown[:1] == lines[:1] and set(re.findall(r"\w+", lines[0].text.lower())) <= _HEADERS:
        raise UserError(f"{option}: {lines[0]} is no class folder and looks like a header; take it off")
    names = [normal(text) if name is None else name for text, name in zip(named, found, strict=True)]
    first: dict[str, Line] = {}
    for line, name in zip(lines, names, strict=True):
        if first.setdefault(name, line) != line:
            raise UserError(f"{option}: {line}: a class comes twice ({first[name]}); name each once")
    if missing := sorted(set(folders) - set(names)):
        raise UserError(
            f"{option}: has no class {some([name or repr(name) for name in missing])}, which photos have; "
            f"add it{unmatched(unknown, 'folder')}"
        )
    return _number(folders, names)


def _by_photo(
    option: str, lines: list[Line], pairs: list[tuple[str, str]], keys: Sequence[str], photos: Photos
) -> Labels:
    classes = [class_ for _, class_ in pairs]
    if bare := [line for line, class_ in zip(lines, classes, strict=True) if not class_]:
        raise UserError(f"{option}: {bare[0]} has no class, others are 'PHOTO CLASS'; give one to every line")
    numbered = _are_labels(option, lines, classes)
    of_photo: dict[str, tuple[str, Line]] = {}
    unknown = []
    for line, (photo, class_) in zip(lines, pairs, strict=True):
        name = photos.find(photo)
        if name is None:
            unknown.append(line)
        elif of_photo.setdefault(name, (class_, line))[0] != class_:
            raise UserError(
                f"{option}: {name} is {of_photo[name][0]} and {class_} ({of_photo[name][1]}, {line}); give "
                "paths, each once"
            )
    if not numbered and unknown[:1] == lines[:1] and Counter(classes)[classes[0]] == 1:
        raise UserError(
            f"{option}: {lines[0]} names no photo, and no other line its class; take a header off"
        )
    by_name = Counter(file_of(key) for key in keys if key not in of_photo)
    found = []
    for key in keys:
        name = file_of(key)
        if key not in of_photo and name in of_photo and by_name[name] > 1:
            raise UserError(f"{option}: {name} is the name of {by_name[name]} photos; give their paths")
        found.append((of_photo.get(key) or of_photo.get(name) or ("", None))[0])
    if missing := [key for key, name in zip(keys, found, strict=True) if not name]:
        raise UserError(
            f"{option}: says nothing of {some(missing)}; add a line for every photo"
            f"{unmatched(unknown, 'photo')}"
        )
    if numbered:
        names = [str(number) for number in range(max(map(int, classes)) + 1)]
        labels = _number([str(int(name)) for name in found], names)
    else:
        labels = _number(found, sorted(set(classes)))
    if not unknown:
        return labels
    kind = "lines of --classes that name no photo"
    return labels._replace(oddities={**labels.oddities, kind: Oddity(len(unknown), str(unknown[0]))})


def _are_labels(option: str, lines: list[Line], classes: list[str]) -> bool:
    """True if classes are labels and not names.

    Raises:
        UserError: they are neither all numbers nor all words.
    """
    plain = [bool(_LABEL.fullmatch(name)) for name in classes]
    for line, name, is_plain in zip(lines, classes, plain, strict=True):
        if not is_plain and _NUMBER.fullmatch(name):
            raise UserError(f"{option}: {line}: {name} is no label; these are 0, 1, 2 and so on")
    if not any(plain):
        return False
    if not all(plain):
        odd = plain.index(sum(plain) <= len(plain) / 2)
        other = plain.index(not plain[odd])
        raise UserError(
            f"{option}: {lines[odd]}: the class is {'a number' if plain[odd] else 'no number'}, unlike in "
            f"{lines[other]}; give numbers throughout, or names (and take a header off)"
        )
    long = [int(name) >= 10**shards.LABEL_DIGITS for name in classes]
    if any(long) and len(set(map(len, classes))) > 1:
        raise UserError(
            f"{option}: {lines[long.index(True)]}: a label has at most {shards.LABEL_DIGITS} digits; longer "
            "numbers are names if all have as many digits (WordNet's); give labels, or such names"
        )
    return not any(long)


def _number(found: Sequence[str], names: list[str]) -> Labels:
    """found: of every photo, one of `names`, which are in the order of labels."""
    if len(names) > 10**shards.LABEL_DIGITS:
        raise UserError(f"{len(names)} classes; a label has room for {shards.LABEL_DIGITS} digits")
    number = {name: label for label, name in enumerate(names)}
    label = np.fromiter((number[name] for name in found), np.int64, len(found))
    absent = np.flatnonzero(np.bincount(label, minlength=len(names)) == 0)
    odd = {"classes that no photo is of": Oddity(len(absent), names[absent[0]])} if len(absent) else {}
    return Labels(label, names, odd)


def _split(text: str, photos: Photos) -> tuple[str, str]:
    """A photo and its class, '' if there is none; of several ways the last whose photo there is."""
    text = text.rstrip()
    ends = [match.span() for match in re.finditer(r"\s+", text) if match.start()][::-1]
    for start, end in ends:
        if photos.find(text[:start]):
            return text[:start], normal(text[end:])
    return (text[: ends[0][0]], normal(text[ends[0][1] :])) if ends else (text, "")


def _nothing(option: str, lines: list[Line], folders: list[str], keys: Sequence[str]) -> UserError:
    """The complaint about a list that is of other photos, or of none."""
    if all(_LABEL.fullmatch(line.text.strip()) for line in lines):
        return UserError(
            f"{option}: {len(lines)} numbers, one a line, as in ImageNet's ground truth for validation, "
            f"do not say whose they are ({lines[0]}); give 'PHOTO CLASS' lines, e.g. "
            "'ILSVRC2012_val_00000001.JPEG n01751748', or move the photos into class folders"
        )
    classes = sorted({name for name in folders if name})
    return UserError(
        f"{option}: none of its lines begins with a class folder or a photo ({lines[0]}); class folders are "
        f"{some(classes) or 'not there'}, photos {keys[0]} and so on: give 'CLASS' or 'PHOTO CLASS' lines"
    )
