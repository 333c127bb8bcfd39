"""Changed copies of the photos of a folder: photo by photo, whole or absent, gone on with after a kill."""

import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dali_bgaug.errors import UserError, shown, some
from dali_bgaug.files import DiskFull, atomic, write_text
from dali_bgaug.photo_tree import class_of
from tools.cli import process
from tools.offline.photos import BadPhoto
from tools.synthetic.settings import read_finished

_SHOWN = 10  # photos named on the screen
_COMPRESSION = 1  # of 9; more takes longer for 2 % less


def make_copies(
    finished: Path,
    what: str,
    settings: Mapping[str, Any],
    write: Callable[..., None],
    jobs: Sequence[tuple],
    workers: int,
    left_out: Sequence[tuple[str, str]] = (),
    **more: Any,
) -> dict[str, Any]:
    """Run `write(*job)` for every photo, but for a finished folder; what is bad is left out and listed.

    Args:
        finished: the record, in the folder of the copies; there once all of them are.
        what: the folder is, for errors and the progress bar.
        settings: all that the copies depend on.
        write: makes the copies of one photo that are not there yet. It raises BadPhoto for one to be left
            out, and UserError for what must be mended first.
        jobs: one a photo; its first part is the path of the photo, whose first folder is its class.
        left_out: photos that have no job, and why.
        more: what the record says beside.

    Returns:
        What the record holds: the settings, `more`, `photos` copied, `counts` of them by class, `left_out`.

    Raises:
        UserError: the folder holds anything else, other settings included; two photos whose copies would
            have one name; photos that cannot be read, all of them named; none that can be used.
    """
    started = finished.with_name(f"{finished.name}.unfinished")
    if result := read_finished(finished, started, settings, what):
        return result
    _reject_equal_names([job[0] for job in jobs])
    write_text(started, json.dumps(settings, indent=1) + "\n")
    bad, problems = list(left_out), []
    attempts = [(write, *job) for job in jobs]
    for key, reason, problem in process(_attempt, attempts, [1] * len(jobs), workers, what):
        bad += [(key, reason)] if reason else []
        problems += [problem] if problem else []
    if problems:
        raise UserError(
            "\n  ".join([f"{len(problems)} photos stop this:", some(sorted(problems), 20, "\n  ")])
        )
    counts = Counter(class_of(key) for key in sorted({job[0] for job in jobs} - {key for key, _ in bad}))
    if not counts:
        first = f" ({': '.join(min(bad))})" if bad else ""
        raise UserError(f"{finished.parent}: none of {len(bad)} photos can be used{first}")
    result = {
        **settings,
        **more,
        "photos": counts.total(),
        "counts": dict(counts),
        "left_out": sorted(map(list, bad)),
    }
    write_text(started, json.dumps(result, indent=1) + "\n")
    started.rename(finished)
    return result


def _attempt(write: Callable[..., None], key: str, *rest: Any) -> tuple[str, str, str]:
    """A photo, why it is left out, and what must be mended first; both are empty of a good one."""
    try:
        write(key, *rest)
    except DiskFull:
        raise  # which is no photo's fault
    except BadPhoto as error:
        return key, error.reason, ""
    except UserError as error:
        return key, "", str(error)
    return key, "", ""


def copy_of(key: str, ending: str) -> str:
    """The path of a photo's copy in its class folder: `ant/1.JPEG` -> `ant/1.png`."""
    return str(Path(key).with_suffix(ending))


def _reject_equal_names(keys: Sequence[str]) -> None:
    photo_of: dict[str, str] = {}
    for key in keys:
        name = copy_of(key, "")
        if (other := photo_of.setdefault(name, key)) != key:
            raise UserError(f"{other} and {key} would both be copied as '{name}'; rename one of them")


def reject_inside(out: Path, photos: Path) -> None:
    """Copies among the photos would be copied themselves."""
    if out.resolve().is_relative_to(photos.resolve()):
        raise UserError(f"--out={out}: lies in --photos={photos}; choose a folder outside")


def summarise(record: Path, result: Mapping[str, Any], how: str, name: str) -> None:
    """Print what was left out, how many photos were copied how, and what evaluates on them, as a set of a
    name."""
    show_left_out(result["left_out"])
    count, classes, left_out = result["photos"], len(result["counts"]), len(result["left_out"])
    print(f"{count} photos of {classes} classes{how}, {left_out} left out (all are in {record})")
    command = f"--checkpoint RUN --set {shlex.quote(f'{name}={record.parent}')}"
    print(f"measure what they cost: python -m train.evaluate robustness {command}")


def show_left_out(left_out: Sequence[Sequence[str]]) -> None:
    """Print the first photos that were left out, and why."""
    if left_out:
        print("\n  ".join(["left out:", *(shown(f"{key}: {reason}") for key, reason in left_out[:_SHOWN])]))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as it is, atomically."""
    with atomic(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=_COMPRESSION)


def scale_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A stored mask, bool [S, S], at an image's size (width, height): nearest neighbour, bool [H, W]."""
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
