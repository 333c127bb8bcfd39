"""Shards in the making: one by one, what is finished being kept, and the manifest once all are there."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dali_bgaug import shards
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from tools.offline import photos
from tools.offline.report import Done, LeftOut, Report

PROGRESS = ".progress"  # what is finished, until the manifest says so
ANOTHER = "choose another --out, or delete that folder to pack anew"
Samples = Callable[[dict[str, Any], list[str]], Iterator[shards.Sample]]
"""The samples of a shard; the record counts them, and what must be mended goes to the list."""


class Keyed(Protocol):
    """A photo that is to be packed."""

    @property
    def key(self) -> str:
        """Its path below the photo folder."""


Row = TypeVar("Row", bound=Keyed)


class Problems(Exception):
    """Ends the writing of a shard that has some."""


def samples_of(
    rows: Iterable[Row],
    sample: Callable[[dict[str, Any], Row], shards.Sample],
    record: dict[str, Any],
    problems: list[str],
) -> Iterator[shards.Sample]:
    """The samples of a shard: see `Samples`.

    sample: makes one of a row, and counts it in the record; a `BadPhoto` is left out, a UserError is one of
    the problems.

    Raises:
        Problems: there are some, after all rows have been looked at.
    """
    for row in rows:
        try:
            made = sample(record, row)
        except photos.BadPhoto as error:
            record["left_out"].append(LeftOut(row.key, error.reason, error.detail)._asdict())
            continue
        except UserError as error:
            problems.append(str(error))
        if not problems:  # else nothing will come of this shard: only what else is wrong
            yield made
    if problems:
        raise Problems


def name_of(number: int) -> str:
    """The name of a shard's files."""
    return f"shard-{number:05d}"


def keep_finished(out: Path, source: str, report: Report) -> bool:
    """Whether all is packed already, which the report then says.

    Raises:
        UserError: the folder holds shards, or unfinished ones, of something else.
    """
    finished = _finished(out, source)
    if finished is None:
        _reject_foreign(out, source)
        return False
    shutil.rmtree(out / PROGRESS, ignore_errors=True)  # a kill may have come just before
    for shard in finished.shards[report.part.slice]:
        report.add(Done(photos=shard.samples, kept=True, written=shard.bytes))
    report.left_out = [LeftOut(*item) for item in finished.left_out]
    report.suspicious = list(finished.suspicious)
    return True


def _finished(out: Path, source: str) -> shards.Manifest | None:
    """The manifest of shards that were packed from the same; of others is a UserError."""
    path = out / "manifest.json"
    if not path.exists():
        return None
    manifest = shards.open_shards(out, option="--out")
    if manifest.source != source:
        raise UserError(f"{path}: packed from other photos, masks or options than those given now; {ANOTHER}")
    return manifest


def _reject_foreign(out: Path, source: str) -> None:
    """Unfinished shards of something else would be mixed up with the new ones."""
    for place in (out / PROGRESS).glob("*.json"):
        if _read_record(place, source) is None and place.exists():  # another part may just have ended
            message = "a shard of other photos, masks or options than those given now"
            raise UserError(f"{place}: {message}; {ANOTHER}")


def write_manifest(
    out: Path, count: int, source: str, classes: list[str], options: dict[str, Any], tiles: shards.TileKind
) -> None:
    """Write the manifest if all `count` shards are there: no part waits, the last to end finds all finished.

    options: of which `mask_size`.
    """
    places = [out / PROGRESS / f"{name_of(number)}.json" for number in range(count)]
    records = [_read_record(place, source) for place in places]
    if missing := records.count(None):
        if _finished(out, source) is None:  # another part may have ended just now
            print(f"{out}: {missing} of {len(places)} shards are still to come from other parts")
        return
    written = [shards.Shard(**record["shard"]) for record in records if record["shard"]]
    if not written:
        raise UserError(f"{out}: every photo was left out; the report says why")
    shards.write_manifest(
        out,
        shards.Manifest(
            samples=sum(shard.samples for shard in written),
            donors=sum(record["donors"] for record in records),
            classes=classes,
            mask_size=options["mask_size"],
            tiles=tiles,
            options=options,
            source=source,
            left_out=sorted(LeftOut(**item) for record in records for item in record["left_out"]),
            suspicious=sorted(key for record in records for key in record.get("suspicious", [])),
            shards=written,
        ),
    )
    listed = {name for shard in written for name in (shard.name, shard.index)}
    for path in out.glob("shard-*"):
        if path.name not in listed:  # of an earlier packing whose manifest was deleted
            path.unlink(missing_ok=True)
    shutil.rmtree(out / PROGRESS, ignore_errors=True)


def _read_record(place: Path, source: str) -> dict[str, Any] | None:
    try:
        record = json.loads(place.read_text())
    except FileNotFoundError:
        return None
    return record if record["source"] == source else None


def pack_shard(out: Path, name: str, source: str, samples: Samples, tiles: shards.TileKind) -> Done:
    """Write a shard, unless it is finished, and the record of it."""
    place = out / PROGRESS / f"{name}.json"
    record = _read_record(place, source)
    kept = record is not None
    if record is None:
        record = {"source": source, "shard": None, "donors": 0, "read": 0}
        record |= {"left_out": [], "counts": dict.fromkeys(("reencoded", "shrunk", "bytes_saved"), 0)}
        record["suspicious"] = []
        problems: list[str] = []
        try:
            shard = shards.write_shard(out, name, samples(record, problems), tiles)
        except Problems:
            return Done(problems=problems)
        if shard.samples:
            record["shard"] = shard.model_dump()
        else:
            (out / shard.name).unlink()
            (out / shard.index).unlink()
        write_text(place, json.dumps(record))
    shard = record["shard"] or {"samples": 0, "bytes": 0}
    return Done(
        photos=shard["samples"],
        kept=kept,
        read=record["read"],
        written=shard["bytes"],
        left_out=[LeftOut(**item) for item in record["left_out"]],
        suspicious=record.get("suspicious", []),
        counts={name: count for name, count in record["counts"].items() if count},
    )
