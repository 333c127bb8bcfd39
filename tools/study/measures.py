"""What a study may measure of a trained run: commands of `train.evaluate`, and numbers of their results."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from dali_bgaug.errors import UserError

MeasureName = Literal[
    "linear",
    "linear_fast",
    "knn",
    "background_gap",
    "background_gap_fast",
    "finetune_1percent",
    "finetune_10percent",
    "robustness",
]


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The data to evaluate on, absolute paths; fields are options of a command line."""

    shards: Path
    """Labelled photos to train classifiers on."""
    test: Path | None = None
    challenge: Path | None = None
    """ImageNet-9's folder, or one like it."""
    class_map: Path | None = None
    shards_1percent: Path | None = None
    shards_10percent: Path | None = None
    set: tuple[str, ...] = ()
    """NAME=DIR of robustness."""
    probe: tuple[str, ...] = ()
    """`key=value` over the recipes of linear probes and fine-tuning."""


class Measure(NamedTuple):
    """A protocol of evaluation."""

    needs: tuple[str, ...]
    """Sets."""
    command: Callable[[Path, Sets], list[str]]
    """Arguments of `train.evaluate` for a run's folder."""
    numbers: Callable[[dict[str, Any]], dict[str, float | None]]
    """Of a result, by column."""
    after: MeasureName | None = None
    """The one whose classifier it evaluates."""


def _linear(run: Path, sets: Sets) -> list[str]:
    words = [f"--checkpoint={run}", f"--data={sets.shards}", f"--test={sets.test}"]
    return ["linear", *words, f"--out={run / 'linear'}", *sets.probe]


def _features(*protocol: str) -> Callable[[Path, Sets], list[str]]:
    return lambda run, sets: [
        *protocol,
        *(f"--checkpoint={run}", f"--data={sets.shards}", f"--test={sets.test}"),
    ]


def _gap(checkpoint: Path, sets: Sets) -> list[str]:
    words = [f"--checkpoint={checkpoint}", f"--data={sets.challenge}"]
    return ["background-gap", *words, *([f"--class-map={sets.class_map}"] if sets.class_map else [])]


def _gap_of_linear(run: Path, sets: Sets) -> list[str]:
    return _gap(run / "linear", sets)


def _gap_fast(run: Path, sets: Sets) -> list[str]:
    return [*_gap(run, sets), f"--train={sets.shards}"]


def _finetune(percent: int) -> Callable[[Path, Sets], list[str]]:
    def command(run: Path, sets: Sets) -> list[str]:
        data = sets.shards_1percent if percent == 1 else sets.shards_10percent
        words = [f"--percent={percent}", f"--checkpoint={run}", f"--data={data}", f"--test={sets.test}"]
        return ["finetune", *words, f"--out={run / f'finetune_{percent}percent'}", *sets.probe]

    return command


def _robustness(run: Path, sets: Sets) -> list[str]:
    return ["robustness", f"--checkpoint={run / 'linear'}", *(f"--set={each}" for each in sets.set)]


def _number(key: str, column: str) -> Callable[[dict[str, Any]], dict[str, float | None]]:
    return lambda found: {column: found[key]}


def _values(found: dict[str, Any]) -> dict[str, float | None]:
    return {name: one["value"] for name, one in found["sets"].items()}


MEASURES: dict[MeasureName, Measure] = {
    "linear": Measure(("test",), _linear, _number("top1", "linear")),
    "linear_fast": Measure(("test",), _features("linear", "--fast"), _number("top1", "linear_fast")),
    "knn": Measure(("test",), _features("knn"), _number("top1", "knn")),
    "background_gap": Measure(("challenge",), _gap_of_linear, _number("bg_gap", "background_gap"), "linear"),
    "background_gap_fast": Measure(("challenge",), _gap_fast, _number("bg_gap", "background_gap_fast")),
    "finetune_1percent": Measure(
        ("test", "shards_1percent"), _finetune(1), _number("top1", "finetune_1percent")
    ),
    "finetune_10percent": Measure(
        ("test", "shards_10percent"), _finetune(10), _number("top1", "finetune_10percent")
    ),
    "robustness": Measure(("set",), _robustness, _values, "linear"),
}
"""In the order in which they are made: one comes after that whose classifier it takes."""


def parse_measures(text: str) -> list[MeasureName]:
    """`linear,knn` -> measures."""
    names = text.split(",")
    if unknown := [name for name in names if name not in MEASURES]:
        raise UserError(f"--evaluate={text}: no {unknown[0]!r}; there are {', '.join(MEASURES)}")
    return cast(list[MeasureName], names)


def ordered(names: list[MeasureName], sets: Sets) -> list[MeasureName]:
    """The measures in the order in which they are made.

    Raises:
        UserError: one lacks a set, or the classifier that it evaluates.
    """
    for name in names:
        measure = MEASURES[name]
        for need in measure.needs:
            if not getattr(sets, need):
                raise UserError(f"--{need.replace('_', '-')}: not given, and {name} is measured on it")
        if measure.after and measure.after not in names:
            raise UserError(f"{name} evaluates the classifier of {measure.after}: measure that, too")
    for field in fields(sets):
        value = getattr(sets, field.name)
        if isinstance(value, Path) and not value.exists():
            raise UserError(f"--{field.name.replace('_', '-')}={value}: does not exist")
    return [name for name in MEASURES if name in names]
