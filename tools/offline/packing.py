"""Shards in the making: one by one, what is finished being kept, and the manifest once all are there."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dali_bgaug import shards
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.shard_index import REMEDY
from tools.offline import photos
from tools.offline.places import CONNECTIONS, Output
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


def keep_finished(output: Output, source: str, report: Report) -> bool:
    """Whether all is packed already, which the report then says.

    Raises:
        UserError: the folder holds shards, or unfinished ones, of something else.
    """
    finished = _finished(output, source)
    if finished is None:
        _reject_foreign(output, source)
        return False
    output.remove_folder(PROGRESS)  # a kill may have come just before
    for shard in finished.shards[report.part.slice]:
        report.add(Done(photos=shard.samples, kept=True, written=shard.bytes))
    report.left_out = [LeftOut(*item) for item in finished.left_out]
    report.suspicious = list(finished.suspicious)
    return True


def _finished(output: Output, source: str) -> shards.Manifest | None:
    """The manifest of shards that were packed from the same; of others is a UserError."""
    data = output.read(shards.MANIFEST)
    if data is None:
        return None
    where = f"{output}/{shards.MANIFEST}"
    if output.url is None:
        manifest = shards.open_shards(output.folder, option="--out")
    else:
        manifest = shards.parse_manifest(data, where)
        _check_sizes(output, manifest.shards, REMEDY)
    if manifest.source != source:
        raise UserError(
            f"{where}: packed from other photos, masks or options than those given now; {ANOTHER}"
        )
    return manifest


def _check_sizes(output: Output, listed: Iterable[shards.Shard], remedy: str) -> None:
    """Shards that are not there, or of other sizes, are a UserError."""
    sizes = output.sizes()
    for shard in listed:
        wrong = [name for name in (shard.name, shard.index) if name not in sizes]
        wrong += [shard.name] * (sizes.get(shard.name) != shard.bytes)
        if wrong:
            message = "missing, or not of the size it was packed with"
            raise UserError(f"{output}/{wrong[0]}: {message}; {remedy}")


def _reject_foreign(output: Output, source: str) -> None:
    """Unfinished shards of something else would be mixed up with the new ones."""
    for name, record in _records(output).items():
        if record["source"] != source:
            message = "a shard of other photos, masks or options than those given now"
            raise UserError(f"{output}/{PROGRESS}/{name}: {message}; {ANOTHER}")


def _records(output: Output) -> dict[str, dict[str, Any]]:
    """All records that are there, by the names of their files; another part may just be ending them."""
    names = [name for name in output.sizes(PROGRESS) if name.endswith(".json")]
    with ThreadPoolExecutor(CONNECTIONS if output.url else 1) as pool:
        texts = list(pool.map(output.read, (f"{PROGRESS}/{name}" for name in names)))
    return {name: json.loads(text) for name, text in zip(names, texts, strict=True) if text is not None}


def write_manifest(
    output: Output,
    count: int,
    source: str,
    classes: list[str],
    options: dict[str, Any],
    tiles: shards.TileKind,
) -> None:
    """Write the manifest if all `count` shards are there: no part waits, the last to end finds all finished.

    options: of which `mask_size`.
    """
    there = _records(output)
    names = [f"{name_of(number)}.json" for number in range(count)]
    records = [there[name] for name in names if name in there and there[name]["source"] == source]
    if missing := count - len(records):
        if _finished(output, source) is None:  # another part may have ended just now
            print(f"{output}: {missing} of {count} shards are still to come from other parts")
        return
    written = [shards.Shard(**record["shard"]) for record in records if record["shard"]]
    if not written:
        raise UserError(f"{output}: every photo was left out; the report says why")
    _check_sizes(output, written, f"delete {PROGRESS} beside it and run the same command again")
    shards.write_manifest(
        output.folder,
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
    output.publish(shards.MANIFEST)
    listed = {name for shard in written for name in (shard.name, shard.index)}
    old = [name for name in output.sizes() if name.startswith("shard-") and name not in listed]
    output.remove(old)  # of an earlier packing whose manifest was deleted
    output.remove_folder(PROGRESS)


def pack_shard(output: Output, name: str, source: str, samples: Samples, tiles: shards.TileKind) -> Done:
    """Write a shard, unless it is finished, and the record of it."""
    with output.file(f"{PROGRESS}/{name}.json", f"{name}.tar", f"{name}.idx") as place:
        return _pack(output.folder, place, name, source, samples, tiles)


def _pack(out: Path, place: Path, name: str, source: str, samples: Samples, tiles: shards.TileKind) -> Done:
    record = json.loads(place.read_text()) if place.exists() else None
    if record is not None and record["source"] != source:
        record = None
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
