"""Pack labelled photos without masks, which linear probes on other data sets train on.

    python -m tools.labelled --cifar cifar-10-batches-py --out OUT       OUT/train and OUT/test
    python -m tools.labelled --photos IMAGES --list FILE --out OUT       a line of FILE is 'PATH LABEL'
    python -m tools.labelled --photos FOLDER --out OUT                   class folders

Photos are packed as they are, in any format that the training decoder knows; CIFAR's arrays as PNG. What
that decoder refuses is left out and listed in OUT-report.json. Recipes that need masks refuse these shards.
"""

import argparse
import contextlib
import hashlib
import io
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from dali_bgaug import shards, storage
from dali_bgaug.decoding import MAX_PIXELS, Decoder, too_large
from dali_bgaug.errors import UserError
from dali_bgaug.files import digest, require_folder, sha256
from dali_bgaug.folder import open_folder
from dali_bgaug.photo_tree import Oddity, describe
from dali_bgaug.storage import Location
from tools.cli import ALL, Part, pick, require, run, tool_parser
from tools.offline import packing, photos
from tools.offline.cifar import SPLITS, read_cifar
from tools.offline.command import add_scale_arguments, location, run_part
from tools.offline.damage import find_damage
from tools.offline.lists import Line, read_lines
from tools.offline.places import SCRATCH, Output, open_output
from tools.offline.report import Done, Report

_LABEL = re.compile(rf"\d{{1,{shards.LABEL_DIGITS}}}")
_NO_MASK = np.zeros((0, 0), bool)


class Row(NamedTuple):
    """A photo of a set."""

    key: str
    label: int
    place: int
    """In a list its line, from 1; in CIFAR's arrays its row."""


class Reader(Protocol):
    """Reads the photos of a set; goes to worker processes."""

    def read(self, row: Row) -> bytes:
        """A photo's bytes.

        Raises:
            UserError: it cannot be read; a `BadPhoto` if it is empty.
        """


class LabelledSet(NamedTuple):
    """Labelled photos in some order."""

    rows: list[Row]
    classes: list[str]
    oddities: dict[str, Oddity]
    reader: Reader
    origin: dict[str, Any]
    """What it is, for the manifest."""


class FileReader(NamedTuple):
    """Photos in files."""

    folder: Path
    list: Path | None = None

    def read(self, row: Row) -> bytes:
        """See `Reader`."""
        path = self.folder / row.key
        try:
            data = path.read_bytes()
        except OSError as error:
            said = f"--list={self.list}: line {row.place}: " if self.list else ""
            raise UserError(
                f"{said}{path}: cannot be read ({error.strerror}); put it there, or take it off the list "
                "(paths are below --photos)"
            ) from error
        if not data:
            raise photos.BadPhoto(path, "empty file")
        return data


class CifarReader(NamedTuple):
    """Images of CIFAR's arrays."""

    folder: Path
    split: str

    def read(self, row: Row) -> bytes:
        """See `Reader`."""
        image = Image.fromarray(read_cifar(self.folder, self.split).images[row.place])
        image.save(buffer := io.BytesIO(), "PNG")
        return buffer.getvalue()


def cifar_set(folder: Path, split: str) -> LabelledSet:
    """A split of CIFAR-10 or CIFAR-100, as `CLASS/NUMBER.png`."""
    found = read_cifar(folder, split)
    labels = found.labels.tolist()
    rows = [Row(f"{found.classes[n]}/{place:05d}.png", n, place) for place, n in enumerate(labels)]
    odd = {}
    if len(rows) != found.public:
        kind = f"images, other than the {found.public} of the public set"
        odd[kind] = Oddity(len(rows), str(folder))
    origin = {"set": found.name, "split": split, "files": found.sha256}
    return LabelledSet(rows, found.classes, odd, CifarReader(folder, split), origin)


def listed_set(folder: Path, path: Path, class_count: int | None = None) -> LabelledSet:
    """Photos below a folder that a list names, `PATH LABEL` a line: the label is the last word, so that paths
    may have blanks; a slash at their beginning is that of `folder`.

    class_count: labels are below it; by default the largest label is the last class. Classes are called by
    their numbers.

    Raises:
        UserError: a line that is none such, a label out of range, a photo that comes twice.
    """
    require_folder(folder, "--photos")
    rows, first = [], {}
    for line in read_lines(path, "--list"):
        row = _row(path, line, class_count)
        if (before := first.setdefault(row.key, line)) is not line:
            raise UserError(f"--list={path}: {line}: the photo comes twice ({before}); name each once")
        rows.append(row)
    labels = np.array([row.label for row in rows])
    classes = [str(number) for number in range(class_count or int(labels.max()) + 1)]
    absent = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0).tolist()
    odd = {"classes that no photo is of": Oddity(len(absent), str(absent[0]))} if absent else {}
    origin = {"list": path.name, "sha256": sha256(path)}
    return LabelledSet(rows, classes, odd, FileReader(folder, path), origin)


def _row(path: Path, line: Line, class_count: int | None) -> Row:
    photo, _, label = line.text.strip().replace("\t", " ").rpartition(" ")
    key = photo.strip().removeprefix("./").lstrip("/")
    if not key or not _LABEL.fullmatch(label):
        raise UserError(
            f"--list={path}: {line}: expected 'PATH LABEL', the label a number after a blank (without header)"
        )
    if ".." in key.split("/"):
        raise UserError(f"--list={path}: {line}: the path leads out of --photos; give paths below it")
    if class_count is not None and int(label) >= class_count:
        raise UserError(
            f"--list={path}: {line}: label {label} of {class_count} classes (--class-count), which are 0 to "
            f"{class_count - 1}"
        )
    return Row(key, int(label), line.number)


def folder_set(folder: Path) -> LabelledSet:
    """Class folders of photos."""
    found = open_folder(folder, "--photos")
    rows = [Row(key, label, 0) for key, label in zip(found.files, found.labels, strict=True)]
    return LabelledSet(rows, found.classes, found.oddities, FileReader(folder), {"folder": folder.name})


class _Job(NamedTuple):
    """The inputs that all shards of a run share."""

    reader: Reader
    output: Output
    source: str


def write_labelled(
    labelled: LabelledSet,
    out: Location,
    *,
    per_shard: int = 10_000,
    seed: int = 0,
    workers: int = 1,
    part: Part = ALL,
    scratch: Path = SCRATCH,
) -> Report:
    """Pack a set without masks, shuffled by `seed`; finished shards are kept. The last part writes the
    manifest.

    scratch: for files on their way to an object store.

    Raises:
        UserError: photos that cannot be read, two of one name; another set in `out`.
    """
    require(per_shard >= 1, f"--per-shard={per_shard}: must be at least 1")
    rows, options = labelled.rows, {"mask_size": 0, "seed": seed, "labelled": labelled.origin}
    photos.reject_equal_names([row.key for row in rows])
    names = hashlib.sha256("\n".join(f"{row.key} {row.label}" for row in rows).encode()).hexdigest()
    source = digest(options, per_shard, labelled.classes, names)
    output = open_output(out, scratch)
    print(describe(output, len(rows), labelled.classes, labelled.oddities))
    made = {"options": options, "oddities": labelled.oddities}
    report = Report(tool="labelled", out=output, part=part, workers=workers, **made)
    if packing.keep_finished(output, source, report):
        return report
    size = 0
    with contextlib.suppress(photos.BadPhoto):  # a missing one is told now: it may be the wrong folder
        size = len(labelled.reader.read(rows[0]))
    job = _Job(labelled.reader, output, source)
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    cuts = [order[start : start + per_shard] for start in range(0, len(rows), per_shard)]
    numbers = range(len(cuts))[part.slice]
    report.run(
        _write_shard,
        ((job, packing.name_of(number), [rows[index] for index in cuts[number]]) for number in numbers),
        [len(cuts[number]) for number in numbers],
        [len(cuts[number]) * (size + _TAR_BYTES) for number in numbers],
    )
    packing.write_manifest(output, len(cuts), source, labelled.classes, options, "geometry")
    return report


_TAR_BYTES = 3500  # a sample's headers and padding, about


def _write_shard(job: _Job, name: str, rows: list[Row]) -> Done:
    samples = partial(packing.samples_of, rows, partial(_sample, job))
    return packing.pack_shard(job.output, name, job.source, samples, "geometry")


def _sample(job: _Job, record: dict[str, Any], row: Row) -> shards.Sample:
    """A photo's sample, counted in the record."""
    data = job.reader.read(row)
    damage = _check(row, data, _decoder())
    record["suspicious"] += [row.key] if damage else []
    record["read"] += len(data)
    return shards.Sample(shards.member_key(row.key), data, _NO_MASK, None, row.label)


def _check(row: Row, data: bytes, decoder: Decoder) -> str:
    """Damage inside a photo that the training decoder can decode, in words; what it cannot is a BadPhoto."""
    size = decoder.peek(data)
    if size and (problem := too_large(*size, MAX_PIXELS)):
        raise photos.BadPhoto(Path(row.key), "too large", f"it {problem}")
    if not size or decoder.decode(data) is None:
        raise photos.BadPhoto(Path(row.key), "refused by the training decoder")
    return find_damage(data, decoder.warning)


@lru_cache(maxsize=1)
def _decoder() -> Decoder:
    """Once a process: building it takes longer than many photos."""
    return Decoder()


def main() -> None:
    parser = tool_parser("tools.labelled", __doc__)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--cifar", type=Path, help="cifar-10-batches-py or cifar-100-python, as unpacked")
    source.add_argument("--photos", type=Path, help="class folders, or what the paths of --list are below")
    add("--list", type=Path, help="text file of 'PATH LABEL', labels from 0")
    add("--class-count", type=int, help="classes of --list (default: to the largest label)")
    add("--out", type=location, required=True, help="the data set; of --cifar the folder of train and test")
    add("--per-shard", type=int, default=10_000, help="photos a tar (%(default)s)")
    add("--seed", type=int, default=0, help="of the global shuffle (%(default)s)")
    add_scale_arguments(parser)
    args = parser.parse_args()
    options = pick(args, "per_shard", "seed")
    require(args.list or args.class_count is None, f"--class-count={args.class_count}: only with --list")
    require(args.class_count is None or args.class_count > 0, f"--class-count={args.class_count}: above 0")
    if args.cifar:
        require(not args.list, f"--list={args.list}: goes with --photos, not with --cifar")
        sets = {storage.join(args.out, split): cifar_set(args.cifar, split) for split in SPLITS}
    elif args.list:
        sets = {args.out: listed_set(args.photos, args.list, args.class_count)}
    else:
        sets = {args.out: folder_set(args.photos)}
    for out, labelled in sets.items():
        run_part(argparse.Namespace(**vars(args) | {"out": out}), write_labelled, labelled, **options)


if __name__ == "__main__":
    run(main)
