"""`python -m train.evaluate robustness`: a classifier on any number of sets, a result after each."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.errors import UserError
from dali_bgaug.files import digest
from dali_bgaug.folder import open_folder
from pipelines import LoaderConfig
from train import distributed
from train.evaluate.background_gap import background_gap, open_splits
from train.evaluate.robustness.networks import fit_run_classifier, load_run_classifier, load_torchvision
from train.evaluate.robustness.protocol import EvaluatedNetwork, RobustnessSet
from train.evaluate.robustness.results import Results
from train.evaluate.robustness.run import (
    evaluate_set,
    how_shown,
    not_finite,
    set_config,
    set_digest,
    shown_values,
)
from train.evaluate.robustness.sets import PROTOCOLS, open_set
from train.evaluate.robustness.source import SetOptions
from train.evaluate.summary import folder_of, prefix_of
from train.features import PHOTOS, Runtime, ready

LONGEST = 24 * 3600.0
"""Seconds that ranks wait for one another at the end of a set: of ImageNet-C's 3.75 million photos, say."""
ORIENTATION = {"ignore": "ignored", "apply": "applied"}


class SetRequest(SetOptions):
    """A set as the command line or `--sets` names it."""

    folder: Path = Field(strict=False)
    """Where it is."""


def robustness_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        "train.evaluate robustness", description="Accuracy under distribution shifts.", epilog=_names()
    )
    add = parser.add_argument
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--checkpoint", type=Path, help="a run with labels (a linear probe, say)")
    whose.add_argument("--torchvision", metavar="NAME", help="a classifier of torchvision, with --weights")
    add("--train", type=Path, help="fit a linear classifier on these photos (default: the run's own)")
    add("--untrained", action="store_true", help="with --train: the weights the run started from")
    add("--weights", type=Path, help="with --torchvision: the file of its weights")
    add("--classes", type=Path, help="with --torchvision: a name a line (default: ImageNet's wnids)")
    add("--set", action="append", default=[], metavar="NAME=DIR", help="a set; any number of times")
    add("--sets", type=Path, metavar="FILE", help="YAML: NAME: DIR, or NAME: {folder: DIR, labels: FILE, …}")
    add("--partial", action="store_true", help="take sets of which photos or classes are missing")
    add("--epsilon", type=float, help="of fgsm, in grey levels of 255 (8)")
    add("--orientation", choices=ORIENTATION, default="ignore", help="EXIF orientation (%(default)s)")
    add("--json", type=Path, help="the result (default: robustness.json in the run's folder)")
    add("--again", action="store_true", help="measure anew what is in the result already")
    add("overrides", nargs="*", metavar="key=value", help="how photos are read, e.g. batch_size=256")
    return parser


def _names() -> str:
    titles = (f"{name} ({protocol.title})" for name, protocol in PROTOCOLS.items() if name != "folders")
    return f"Names of sets: {', '.join(titles)}; any other: class folders of one's own."


def robustness(args: argparse.Namespace, device: torch.device) -> None:
    """Evaluate on every set that was asked for and is not finished; every rank must call this.

    Args:
        args: of `robustness_parser`.
        device: of the network.
    """
    runtime = validate(Runtime, override({}, args.overrides), "key=value")
    requests = requested_sets(args)
    network = _load(args, runtime, device)
    network.network.requires_grad_(False)
    steps = [step for name, one in requests.items() for step in _steps(name, one, network, runtime, args)]
    path = args.json or _default_path(args)
    distributed.limit_waiting(LONGEST)
    with distributed.hold(path.with_name(f"{path.name}.lock"), "--json"):
        results = Results(path, _head(args, network, device), args.again)
        for step in steps:
            _measure_once(results, step, device)
    _say(table({step.names[0]: results.sets[step.names[0]] for step in steps}))
    _say(str(path))


_BESIDE_THE_KEY = ("oddities", "labels", "maps")
"""Values of a set's record that its result does not depend on: files that were not taken, and where truths
lie, of which there are digests."""


class Step(NamedTuple):
    """A set, or a part of one, that is to be measured."""

    names: list[str]
    """In the file of results."""
    key: Callable[[], dict[str, Any]]
    """Reads all that the result depends on; every rank must call it."""
    measure: Callable[[torch.device], dict[str, Any]]


def _measure_once(results: Results, step: Step, device: torch.device) -> None:
    """Measure a set, unless its result stands, and keep that."""
    names, key, name = step.names, step.key(), "/".join(step.names)
    if (found := distributed.broadcast(results.finished(names, key))) is not None:
        _say(f"{name}: finished before, {_percent(found['value']).strip()}; --again measures it anew")
        return
    if results.has(names):
        _say(f"{name}: measured before with other photos or options; anew")
    results.keep(names, {**step.measure(device), **key, "device": device.type})
    if distributed.rank() == 0:
        results.write()


def requested_sets(args: argparse.Namespace) -> dict[str, SetRequest]:
    """The sets of `--sets` and `--set`, by name.

    Raises:
        UserError: there are none, one twice, or one that is not described as it must be.
    """
    common = {"partial": args.partial} | ({} if args.epsilon is None else {"epsilon": args.epsilon})
    found = {}
    for key, value in (read_yaml(args.sets) if args.sets else {}).items():
        values = value if isinstance(value, dict) else {"folder": value}
        found[str(key)] = validate(SetRequest, common | values, f"--sets={args.sets}: {key}")
    for word in args.set:
        name, _, folder = word.partition("=")
        if not (name and folder):
            raise UserError(f"--set {word}: expected NAME=DIR, e.g. imagenet-r=/data/imagenet-r")
        if name in found:
            raise UserError(
                f"--set {word}: {name} is given twice; give each set once, under a name of its own"
            )
        found[name] = validate(SetRequest, common | {"folder": folder}, f"--set {word}")
    if not found:
        raise UserError(f"--set: nothing to evaluate on; give NAME=DIR. {_names()}")
    return found


def _load(args: argparse.Namespace, runtime: Runtime, device: torch.device) -> EvaluatedNetwork:
    if args.train is None and args.untrained:
        raise UserError("--untrained: there is nothing to classify with; give --train=SHARDS")
    if args.torchvision is None:
        for option in ("weights", "classes"):
            if (value := getattr(args, option)) is not None:
                raise UserError(f"--{option}={value}: only with --torchvision; a run has its own")
        if args.train is not None:
            return fit_run_classifier(args.checkpoint, args.train, runtime, device, args.untrained)
        return load_run_classifier(args.checkpoint)
    if args.train is not None:
        raise UserError(f"--train={args.train}: only with --checkpoint; torchvision's are classifiers")
    if args.weights is None:
        raise UserError(f"--torchvision={args.torchvision}: give --weights=FILE, nothing is downloaded")
    return load_torchvision(args.torchvision, args.weights, args.classes)


def _default_path(args: argparse.Namespace) -> Path:
    if args.checkpoint is None:
        return args.weights.with_name(f"{args.weights.stem}-robustness.json")
    return folder_of(args.checkpoint) / f"{prefix_of(args.checkpoint)}robustness.json"


def _head(args: argparse.Namespace, network: EvaluatedNetwork, device: torch.device) -> dict[str, Any]:
    """What results say before their sets."""
    return {
        **{"protocol": "robustness", "checkpoint": str(args.checkpoint or args.weights)},
        **{"ranks": distributed.world_size(), "device": device.type},
        "orientation": ORIENTATION[args.orientation],
        "network": {"name": network.name, "sha256": network.sha256, **network.record},
    }


def _steps(
    name: str, request: SetRequest, network: EvaluatedNetwork, runtime: Runtime, args: argparse.Namespace
) -> list[Step]:
    """What a set asks to be measured: itself, or each of its parts."""
    if name == "imagenet-9":
        return [_background_step(name, request, network, runtime, args)]
    options = SetOptions(**request.model_dump(exclude={"folder"}))
    parts = open_set(name, request.folder, network, options)
    several = len(parts) > 1
    return [
        _step([name, (one.record or {})["part"]] if several else [name], one, options, network, runtime, args)
        for one in parts
    ]


def _step(
    names: list[str],
    one: RobustnessSet,
    options: SetOptions,
    network: EvaluatedNetwork,
    runtime: Runtime,
    args: argparse.Namespace,
) -> Step:
    config = set_config(network, one, runtime, args.orientation)

    def key() -> dict[str, Any]:
        attacked = {"epsilon": options.epsilon} if one.protocol == "fgsm" else {}
        what = {"protocol": one.protocol, "files_sha256": set_digest(one), "shown": how_shown(config)}
        record = {name: value for name, value in (one.record or {}).items() if name not in _BESIDE_THE_KEY}
        return {**record, **what, **attacked}

    return Step(names, key, lambda device: evaluate_set(network, one, config, device))


def _background_step(
    name: str, request: SetRequest, network: EvaluatedNetwork, runtime: Runtime, args: argparse.Namespace
) -> Step:
    """ImageNet-9, which `background_gap` evaluates; `labels` is its class map."""
    try:
        splits = open_splits(request.folder, network.classes, request.labels)
    except UserError as error:
        raise UserError(f"--set {name}={request.folder}: {error} (here: labels in --sets)") from error
    show = shown_values(network, next(iter(splits.values())).place, args.orientation)
    batch = {"batch_size": PHOTOS * distributed.world_size()}
    config = validate(LoaderConfig, show | batch | runtime.model_dump(exclude_none=True), f"--set {name}")

    def key() -> dict[str, Any]:
        files = digest(*(open_folder(split.place).digest for split in splits.values()))
        classes = digest(*(split.to_folder.tolist() for split in splits.values()))
        what = {"protocol": name, "files_sha256": files, "shown": how_shown(config)}
        return {**what, "class_map_sha256": classes}

    def logits_of(images: torch.Tensor) -> torch.Tensor:
        logits = network.network(images)
        if not logits.isfinite().all():
            raise not_finite(f"--set {name}={request.folder}", network, "some photos")
        return logits

    def measure(device: torch.device) -> dict[str, Any]:
        ready(network.network, device)
        found = background_gap(logits_of, splits, config, device)
        mixed = found["splits"].get("mixed_rand", {})
        photos = sum(split["photos"] for split in found["splits"].values())
        return {
            **{"folder": str(request.folder), "value": mixed.get("accuracy")},
            **{"metric": "accuracy with another class's background (mixed_rand)", "photos": photos},
            **{"unread": [], **found},
        }

    return Step([name], key, measure)


# ---------------------------------------------------------------- for people

_BESIDE = {"clean": "clean", "top1": "original labels", "mce": "mCE", "bg_gap": "BG-Gap"}
"""Numbers of some protocols that stand under a set's value."""


def table(sets: dict[str, Any]) -> str:
    """Results for people: a line a set, and under it what else was measured."""
    rows: list[tuple[str, str, str]] = []
    for name, result in sets.items():
        more = f"{result['photos']:>8} photos"
        more += f", {len(result['unread'])} left out" if result["unread"] else ""
        rows.append((name, _percent(result["value"]), f"{more}  {result['metric']}"))
        beside = {part: one["value"] for part, one in result.get("parts", {}).items()}
        beside |= result.get("accuracies", {}) | {
            title: result[key] for key, title in _BESIDE.items() if result.get(key) is not None
        }
        if isinstance(categories := result.get("by_category"), dict):
            beside |= {key: value for key, value in categories.items() if isinstance(value, float)}
        rows += [(f"  {title}", _percent(value), "") for title, value in beside.items()]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}  {more}".rstrip() for name, value, more in rows)


def _percent(value: float | None) -> str:
    return "       -" if value is None else f"{value:8.2%}"


def _say(text: str) -> None:
    if distributed.rank() == 0:
        print(text, flush=True)
