"""Result files of evaluation: found, read, and taken apart into measurements."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dali_bgaug.config import read_yaml
from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json
from train.evaluate.probe import RECIPES, TRANSFER
from train.evaluate.report.columns import own_key
from train.evaluate.report.runs import METHODS, Network, is_probe, network_of, own_bn

_KIND = r"(linear(-fast|-bn-\w+)?|finetune-\d+percent(-any-subset)?|knn|background-gap|robustness)"
_PROTOCOL = re.compile(rf"{_KIND}(-untrained)?")
_REPORT = "report"
_REMEDY = "evaluate again, or delete it"
Corruptions = dict[str, dict[str, float]]
"""Accuracy by corruption and severity."""
PHOTOS, UNREADABLE, ORIENTATION = "photos", "unreadable photos", "EXIF orientation"


class Measurement(NamedTuple):
    """A number of a network."""

    network: Network
    column: str
    """A key of `columns`."""
    value: float
    """A share; mCE is 1 for AlexNet."""
    facts: dict[str, str]
    """What must be the same where numbers are compared."""
    file: Path
    given: Path
    """The argument it was found under."""
    table: Corruptions | None = None
    """Of ImageNet-C."""


class Found(NamedTuple):
    """What was found in some folders."""

    measurements: list[Measurement]
    files: int
    """Of results."""
    ignored: int
    """JSON files that are no results of evaluation: configs, cards, manifests."""


def find_results(places: Sequence[Path]) -> Found:
    """The measurements of all results in and below some folders, and in some files.

    Raises:
        UserError: no such place, a damaged result, a given file that is none, or no result at all.
    """
    measurements: list[Measurement] = []
    seen: set[Path] = set()
    files = ignored = 0
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: no such folder or file; give a run's folder, or one with runs in it")
        for file in sorted(place.rglob("*.json")) if place.is_dir() else [place]:
            if file.resolve() in seen or not file.is_file():
                continue
            seen.add(file.resolve())
            result = _read(file, given=not place.is_dir())
            if result is None:
                ignored += 1
                continue
            if result["protocol"] == _REPORT:
                continue  # an earlier one, which this may be written over
            files += 1
            measurements += _measurements(result, file, place)
    if not measurements:
        where = ", ".join(map(str, places))
        raise UserError(f"{where}: no results of train.evaluate in {ignored} JSON files; evaluate first")
    return Found(measurements, files, ignored)


def _read(file: Path, given: bool) -> dict[str, Any] | None:
    """A result; None if it is a file of another kind."""
    try:
        result = read_json(file, _REMEDY)
    except UserError:
        if given or re.search(_KIND, file.stem):
            raise
        return None
    protocol = str(result.get("protocol"))
    if _PROTOCOL.fullmatch(protocol) or (protocol == _REPORT and not given):
        return result
    if given:
        raise UserError(f"{file}: no result of train.evaluate; give its file, or the run's folder")
    return None


def _measurements(result: dict[str, Any], file: Path, given: Path) -> list[Measurement]:
    protocol = result["protocol"].removesuffix("-untrained")
    try:
        network = network_of(result, file)
        if protocol == "robustness":
            taken = _of_robustness(result)
        elif protocol == "background-gap":
            taken = _of_gap(result)
        else:
            taken = _of_labels(protocol, result, network.traits.get("method.name"))
        return [
            Measurement(network, column, _number(value), facts, file, given, table and _numbers(table))
            for column, value, facts, table in taken
            if value is not None
        ]
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{file}: not what {protocol} writes ({type(error).__name__}: {error}); {_REMEDY}"
        ) from error


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return value


def _numbers(table: Corruptions) -> Corruptions:
    return {name: {level: _number(value) for level, value in row.items()} for name, row in table.items()}


_Taken = Iterator[tuple[str, float | None, dict[str, str], Corruptions | None]]


def _of_labels(protocol: str, result: dict[str, Any], method: str | None) -> _Taken:
    """A linear probe, fine-tuning or k-NN. method: of the pre-training, if that is known."""
    facts = {PHOTOS: str(result["test"]["photos"]), "trained on": f"{result['data']['photos']} photos"}
    if protocol == "knn":
        facts |= {"k": str(result["k"]), "temperature": str(result["temperature"])}
    elif protocol == "linear-fast":
        facts["rates"] = " ".join(f"{rate:g}" for rate in result["rates"])
    else:
        kind = "linear" if is_probe(protocol) else "finetune"
        facts["recipe"] = _recipe(result, f"{kind}_{method or ''}")
    if is_probe(protocol):
        facts["batch norm"] = bn = result["bn"]
        own, column = own_bn(method) if method in METHODS else result.get("recipe_bn", bn), "linear"
        if result["recipe"] in TRANSFER:
            own, column = result["recipe_bn"], result["recipe"].removeprefix("linear_")
            facts["size"] = f"{result['size']} pixels"
        protocol = column if bn == own else f"{column}-bn-{bn}"
    if labels := result.get("labels"):
        facts["labels"] = str(labels.get("list", "all of the shards"))
    yield protocol, result["top1"], facts, None


def _recipe(result: dict[str, Any], own: str) -> str:
    """The recipe of a probe: `its method's`, and what differs from the file. own: what the name of such a
    recipe begins with."""
    name = result["recipe"]
    path = RECIPES / f"{name}.yaml"
    if not name.startswith(own) or not path.is_file():
        return f"{name}, {result['epochs']} epochs"
    values = _recipe_values(path)
    said = {name: result[name] for name in ("epochs", "batch_size", "lr")}
    changed = [f"{name}={value:g}" for name, value in said.items() if values[name] not in (value, None)]
    return ", ".join(["its method's", *changed])


@cache
def _recipe_values(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    batch, rate = values.get("data", {}).get("batch_size"), values.get("optim", {}).get("lr")
    return {"epochs": values.get("epochs"), "batch_size": batch, "lr": rate}


def _of_gap(result: dict[str, Any]) -> _Taken:
    """The background gap; its photos are turned upright."""
    suffix = "" if result["classifier"] == "its own" else " fast"
    facts = {ORIENTATION: "applied"}
    yield from _splits("imagenet-9", result, facts, suffix)


def _splits(name: str, result: dict[str, Any], facts: dict[str, str], suffix: str) -> _Taken:
    for split, found in result["splits"].items():
        own = facts | {PHOTOS: str(found["photos"])}
        yield f"{name}/{split}{suffix}", found["accuracy"], own, None
    yield f"{name}/bg_gap{suffix}", result.get("bg_gap"), facts, None


def _of_robustness(result: dict[str, Any]) -> _Taken:
    """Every set of a robustness evaluation."""
    for name, found in result["sets"].items():
        facts = {ORIENTATION: result["orientation"]}
        if found.get("unread"):
            facts[UNREADABLE] = str(len(found["unread"]))
        take = {"imagenet-v2": _v2, "imagenet-c": _corrupted, "imagenet-9": _nine}.get(found["protocol"])
        yield from (take or _plain)(own_key(name, found["protocol"]), found, facts)


def _said(found: dict[str, Any], facts: dict[str, str]) -> dict[str, str]:
    """The facts of a set's value, as far as it says them."""
    names = {PHOTOS: PHOTOS, "metric": "metric", "epsilon": "epsilon", "cells": "corruptions and severities"}
    return facts | {shown: str(found[name]) for name, shown in names.items() if name in found}


def _plain(name: str, found: dict[str, Any], facts: dict[str, str]) -> _Taken:
    yield name, found["value"], _said(found, facts), None
    if found["protocol"] == "real":
        own = {PHOTOS: str(found["top1_photos"])} if "top1_photos" in found else {}
        yield f"{name}/top1", found.get("top1"), facts | own, None


def _v2(name: str, found: dict[str, Any], facts: dict[str, str]) -> _Taken:
    for part, own in found.get("parts", {found.get("part"): found}).items():
        yield f"{name}/{part}" if part else name, own["value"], _said(own, facts), None


def _nine(name: str, found: dict[str, Any], facts: dict[str, str]) -> _Taken:
    yield from _splits(name, found, facts, "")


def _corrupted(name: str, found: dict[str, Any], facts: dict[str, str]) -> _Taken:
    own = _said(found, facts)
    for category, value in found["by_category"].items():
        yield f"{name}/{category}", value, own, None
    rows = {row: cells for row, cells in found["table"].items() if row != "extra"}
    yield name, found["value"], own, rows | found["table"].get("extra", {})
    yield f"{name}/mce", found.get("mce"), own, None
