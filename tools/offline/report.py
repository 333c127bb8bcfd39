"""The report of an offline tool: counted while it runs, printed at its end, and written as JSON."""

import contextlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dali_bgaug.errors import UserError, shown, some
from dali_bgaug.files import DiskFull, write_text
from dali_bgaug.photo_tree import Oddity, recorded
from tools.cli import Part, process
from tools.offline.places import Output

SHOWN = 20  # photos named on the screen; the JSON names all
_WORDS = {"full_frame": "without a usable background strip"}
"""What the summary says of counts whose name, in the JSON, does not explain itself."""
_OF_STORE = {"options", "photos", "left_out", "files", "bytes_written"}
"""What a report says of the store, whichever run made it."""
SPARE = 1.05  # headers, padding, and the file under way


class LeftOut(NamedTuple):
    """A photo that cannot be used."""

    photo: str
    reason: str
    """The kind of defect, e.g. `empty file`: what the summary counts by."""
    detail: str = ""


@dataclass(kw_only=True)
class Done:
    """The result of one job: one file of a store, one shard."""

    photos: int = 0
    """Photos that are in the file."""
    kept: bool = False
    """The file was there already, from a run before."""
    read: int = 0
    """Bytes of the photos, none of kept files'."""
    written: int = 0
    """Bytes of the file, also of a kept one."""
    left_out: list[LeftOut] = field(default_factory=list)
    suspicious: list[str] = field(default_factory=list)
    """Photos that are taken, but are damaged inside."""
    problems: list[str] = field(default_factory=list)
    """What must be mended first: the file is not written."""
    counts: dict[str, int] = field(default_factory=dict)
    """Whatever else the tool counts."""
    cpu_seconds: float = 0.0
    """In whatever process, none for kept files."""


@dataclass(kw_only=True)
class Report(Done):
    """The sum of all jobs of a run."""

    tool: str
    out: Output
    part: Part
    workers: int
    options: dict[str, Any]
    """How the files were made."""
    oddities: Mapping[str, Oddity] = field(default_factory=dict)
    """Of the input: what was not taken, and what may not be meant (docs/data.md)."""
    files: int = 0
    kept: int = 0
    counts: Counter = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    worked_on: int = 0
    """Photos of files that were not kept."""

    def run(
        self,
        function: Callable[..., Done],
        jobs: Iterable[tuple],
        sizes: Sequence[int],
        bytes_each: Sequence[float],
    ) -> None:
        """Run all jobs and add up.

        sizes: photos of each job. bytes_each: about how many bytes its file will have.

        Raises:
            UserError: the disk is full (it says how much is still needed), or some job has problems; the
                JSON is written all the same.
        """
        # On its way to an object store lies only what is being made.
        needed = sum(sorted(bytes_each)[-self.workers :] if self.out.url else bytes_each)
        self._warn_of_space(needed)
        measured = ((function, *job) for job in jobs)
        try:
            for done in process(_measured, measured, sizes, self.workers, self.tool):
                self.add(done)
        except DiskFull as error:
            share = 1 - (self.photos + len(self.left_out)) / max(1, sum(sizes))
            raise UserError(
                f"{error} ({self.files} of {len(sizes)} files are finished; the rest needs about "
                f"{format_bytes(SPARE * min(needed, share * sum(bytes_each)))}, "
                f"{format_bytes(_free(self.out.folder))} are free)"
            ) from error
        finally:
            self.seconds = time.perf_counter() - self.started
            self.left_out.sort()
            self.suspicious.sort()
            if self.worked_on or self.problems or not self._is_told():
                # else nothing was done, and the report of the run that did it says more
                with contextlib.suppress(DiskFull):  # which is told anyway
                    self._save()
        if self.problems:
            raise UserError(_listed(f"{len(self.problems)} photos stop this:", sorted(self.problems)))

    def _is_told(self) -> bool:
        """True if the report that is there is of the store as it is: a run that was killed may have left one
        of less, or none, though its workers finished their files."""
        try:
            before = json.loads(self.out.parent.read(self.path.name) or b"")
            return all(before[name] == value for name, value in self.to_json().items() if name in _OF_STORE)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def add(self, done: Done) -> None:
        """Count a job that ended."""
        self.photos += done.photos
        self.read += 0 if done.kept else done.read
        self.written += done.written
        self.files += not done.problems
        self.kept += done.kept
        self.worked_on += 0 if done.kept else done.photos + len(done.left_out)
        self.left_out += done.left_out
        self.suspicious += done.suspicious
        self.problems += done.problems
        self.counts.update(done.counts)
        self.cpu_seconds += 0 if done.kept else done.cpu_seconds

    def _warn_of_space(self, needed: float) -> None:
        folder = self.out.folder
        free = _free(folder)
        there = sum(Output(folder).sizes().values())
        if needed * SPARE - there > free:
            print(
                f"warning: {folder} needs about {format_bytes(needed * SPARE - there)}, "
                f"{format_bytes(free)} are free; if the disk fills up, finished files stay good",
                file=sys.stderr,
            )

    @property
    def path(self) -> Path:
        """The JSON: beside the output, so that the output's bytes do not depend on how long it took."""
        suffix = f"-{self.part.index}-of-{self.part.count}" if self.part.count > 1 else ""
        folder = self.out.folder.absolute()
        return folder.with_name(f"{folder.name}-report{suffix}.json")

    def to_json(self) -> dict[str, Any]:
        """The values of the JSON."""
        seconds = max(self.seconds, 1e-9)
        return {
            "tool": self.tool,
            "part": str(self.part),
            "workers": self.workers,
            "options": self.options,
            "photos": self.photos,
            **self.counts,
            "left_out": len(self.left_out),
            "left_out_by_reason": dict(Counter(item.reason for item in self.left_out)),
            "left_out_photos": [item._asdict() for item in self.left_out],
            **({"suspicious": self.suspicious} if self.suspicious else {}),
            "oddities": recorded(self.oddities),
            "files": self.files,
            "files_kept_from_before": self.kept,
            "bytes_written": self.written,
            "bytes_of_photos_read": self.read,
            "problems": sorted(self.problems),
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "photos_worked_on": self.worked_on,
            "photos_per_s": round(self.worked_on / seconds, 2),
            "mb_per_s": round(self.read / seconds / 1e6, 2),
        }

    def _save(self) -> None:
        write_text(self.path, json.dumps(self.to_json(), indent=1) + "\n")
        self.out.parent.publish(self.path.name)

    def finish(self) -> None:
        """Print the summary, and write the JSON if no run has."""
        values = self.to_json()
        if not self._is_told():
            self._save()
        words = {name: _WORDS.get(name, name.replace("_", " ")) for name in self.counts}
        extra = "".join(f", {count} {words[name]}" for name, count in self.counts.items())
        part = f" (part {self.part})" if self.part.count > 1 else ""
        print(
            f"{self.out}{part}: {counted(self.photos, 'photo')} in {counted(self.files, 'file')}, "
            f"{format_bytes(self.written)}{extra}, {len(self.left_out)} left out"
        )
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in values["left_out_by_reason"].items())
            lines = [f"{item.photo}: {item.reason}" for item in self.left_out]
            print(_listed(f"left out: {reasons}", lines))
        if self.suspicious:
            print(_listed(f"suspicious: {len(self.suspicious)} damaged inside", self.suspicious))
        kept = f" ({counted(self.kept, 'file')} kept from before)" if self.kept else ""
        did = f"nothing to do: {counted(self.kept, 'file')} already finished"
        if self.worked_on:
            did = (
                f"{values['seconds']:.1f} s, {values['photos_per_s']} photos/s, {values['mb_per_s']} MB/s of "
                f"photos, {counted(self.workers, 'worker')}{kept}"
            )
        print(f"{did}; report: {self.out.parent}/{self.path.name}")


def _measured(function: Callable[..., Done], *job: Any) -> Done:
    start = time.process_time()
    done = function(*job)
    done.cpu_seconds = time.process_time() - start
    return done


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n  ".join([title, some(list(map(shown, lines)), SHOWN, "\n  ")])


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" + "s" * (count != 1)


def format_bytes(count: float) -> str:
    """`1234567` -> `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
