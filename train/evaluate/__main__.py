"""Evaluation of a pre-trained backbone.

    python -m train.evaluate linear         --checkpoint RUN --data SHARDS --test SHARDS [--bn eval] [--fast]
    python -m train.evaluate finetune       --checkpoint RUN --data SHARDS --test SHARDS --percent 1
    python -m train.evaluate knn            --checkpoint RUN --data SHARDS --test SHARDS
    python -m train.evaluate background-gap --checkpoint RUN --data FOLDER [--train SHARDS]
    python -m train.evaluate report         RUN … [--baseline NAME] [--paper] [--out DIR]
    python -m train.evaluate robustness     --checkpoint RUN --set NAME=DIR [--set …]

`--from moco|swav|byol|vissl|timm` reads a backbone of those projects out of `--checkpoint FILE`.
`torchrun --nproc-per-node=8 -m train.evaluate …` shares the work. `--test` also takes a folder of class
folders of photos. The same command goes on with a linear probe, fine-tuning or sets that were interrupted.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dali_bgaug.config import override, validate
from dali_bgaug.errors import UserError, run_program
from dali_bgaug.files import write_json
from pipelines import LoaderConfig
from train import distributed
from train.device import choose_torch_device
from train.evaluate.backbone import Loaded, load_backbone, load_foreign
from train.evaluate.background_gap import background_gap, open_splits
from train.evaluate.classifier import load_classifier
from train.evaluate.fast import fit_fast, linear_fast
from train.evaluate.heads import RATES
from train.evaluate.labels import labels_of
from train.evaluate.probe import TRANSFER, ProbeJob, bn_of, probe_config, recipe_of, run_probe
from train.evaluate.robustness.command import robustness, robustness_parser
from train.evaluate.summary import folder_of, prefix_of, table
from train.features import evaluation_values, ready, same_classes
from train.foreign import SOURCES
from train.neighbours import TEMPERATURE, K, knn
from train.networks import FEATURES
from train.signals import StopRequest

Result = dict[str, Any] | None


def _linear(args: argparse.Namespace, device: torch.device) -> Result:
    if args.fast:
        _refuse(args, ("bn", "recipe", "out"), "--fast: features are extracted once, in evaluation mode")
        rates = RATES if args.rates is None else tuple(args.rates)
        backbone = _backbone(args)
        found = linear_fast(backbone, *_sets_of(args, backbone.config.data), device, rates=rates)
        return {**found, "untrained": args.untrained, "pretraining": backbone.pretraining.model_dump()}
    _refuse(args, ("rates", "untrained"), "a probe by a recipe has one rate and trained weights: with --fast")
    return _probe(args, device, {"method": {"backbone_bn": args.bn}} if args.bn else {})


def _finetune(args: argparse.Namespace, device: torch.device) -> Result:
    labels = labels_of(args.data, args.percent, args.any_subset)
    found = _probe(args, device, {})
    return found and {**found, "labels": labels}


def _probe(args: argparse.Namespace, device: torch.device, given: dict[str, Any]) -> Result:
    backbone = _backbone(args)
    recipe = args.recipe or recipe_of(args.protocol, backbone.config.method.name, vars(args).get("percent"))
    values = override(given, args.overrides)
    config = probe_config(backbone, args.checkpoint, args.data, recipe, values)
    own = bn_of(recipe)
    out = args.out or folder_of(args.checkpoint) / _run_name(args, config.method.backbone_bn, own)
    found = run_probe(ProbeJob(config, args.test, out), device, StopRequest())
    return found and {**found, "recipe_bn": own}


def _backbone(args: argparse.Namespace) -> Loaded:
    """The backbone of a run, or of another project's file."""
    if args.source is None:
        _refuse(args, ("backbone",), "a run says itself what its backbone is; only with --from")
        return load_backbone(args.checkpoint, getattr(args, "untrained", False))
    if getattr(args, "untrained", False):
        raise UserError(f"--untrained --from={args.source}: nobody knows what its weights began as")
    return load_foreign(args.checkpoint, args.source, args.backbone or DEFAULT_BACKBONE)


def _knn(args: argparse.Namespace, device: torch.device) -> Result:
    backbone = _backbone(args)
    sets = _sets_of(args, backbone.config.data)
    found = knn(backbone.network, *sets, device, neighbours=args.k, temperature=args.temperature)
    what = {"backbone": backbone.config.backbone, "weights": backbone.sha256}
    return {**what, **found, "pretraining": backbone.pretraining.model_dump()}


def _background_gap(args: argparse.Namespace, device: torch.device) -> Result:
    if args.train is None:
        _refuse(args, ("untrained",), "--untrained: there is nothing to classify with; give --train=SHARDS")
        source = trained = load_classifier(args.checkpoint)
        splits = open_splits(args.data, trained.network.classes, args.class_map)
        logits, how = ready(trained.network, device), {"bn": trained.bn, "classifier": "its own"}
    else:
        source = backbone = load_backbone(args.checkpoint, args.untrained)
        splits = open_splits(args.data, same_classes({"--train": args.train}), args.class_map)
        data = _reading(args, backbone.config.data, "--train", args.train)
        fast = fit_fast(backbone, data, device, option="--train")
        logits, how = fast.logits, {"bn": "eval", "untrained": args.untrained, "classifier": fast.result}
    name, split = next(iter(splits.items()))
    reading = _reading(args, source.config.data, f"--data: {name}", split.place)
    found = background_gap(logits, splits, reading, device)
    what = {"backbone": source.config.backbone, "weights": source.sha256}
    return {**what, **how, "data": str(args.data), **found}


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(args, name) not in (None, False):
            raise UserError(f"--{name.replace('_', '-')}={getattr(args, name)}: {why}; leave it out")


def _loader_words(args: argparse.Namespace) -> list[str]:
    return [word.removeprefix("data.") for word in args.overrides]


def _reading(args: argparse.Namespace, run: LoaderConfig, option: str, shards: Path) -> LoaderConfig:
    """The loader of a set: that of `evaluation_config`, with the values of the command line."""
    values = override(evaluation_values(run, shards), _loader_words(args))
    return validate(LoaderConfig, values, f"{option}={shards}")


def _sets_of(args: argparse.Namespace, run: LoaderConfig) -> list[LoaderConfig]:
    return [_reading(args, run, f"--{name}", getattr(args, name)) for name in ("data", "test")]


# ---------------------------------------------------------------- what comes of it


def _result_path(args: argparse.Namespace, found: dict[str, Any]) -> Path:
    """The path of the result: beside a probe's run, or in the folder of the run that is evaluated."""
    if args.json:
        return args.json
    if getattr(args, "out", None):
        return args.out.with_name(f"{args.out.name}.json")
    name = _bn_name(args, found["bn"], found["recipe_bn"]) if "recipe_bn" in found else _name(args)
    return folder_of(args.checkpoint) / f"{prefix_of(args.checkpoint)}{name}.json"


def _run_name(args: argparse.Namespace, bn: str, own: str) -> str:
    """The name of a probe's folder. A folder of other projects' files may hold several."""
    return f"{prefix_of(args.checkpoint) if args.source else ''}{_bn_name(args, bn, own)}"


def _bn_name(args: argparse.Namespace, bn: str, own: str) -> str:
    """The name of a probe's results: with the mode of batch norm where it is not the recipe's own, so that
    both of a backbone have a place; and with the recipe's where it is of another data set."""
    recipe = args.recipe.stem if args.recipe else None
    name = recipe if recipe in TRANSFER else _name(args)
    return name if bn == own else f"{name}-bn-{bn}"


def _name(args: argparse.Namespace) -> str:
    """The name of results of this kind."""
    given = vars(args)
    kinds = {"fast": "fast", "percent": f"{given.get('percent')}percent", "any_subset": "any-subset"}
    kinds |= {"untrained": "untrained"}
    return "-".join([args.protocol, *(text for name, text in kinds.items() if given.get(name))])


# ---------------------------------------------------------------- the command line


def _common(protocol: str, what: str, words: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"train.evaluate {protocol}", description=what)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a run, a checkpoint, or exported weights")
    add("--json", type=Path, help=f"the result (default: {protocol}.json in the run's folder)")
    add("overrides", nargs="*", metavar="key=value", help=words)
    return parser


_LOADER_WORDS = "loader config, e.g. batch_size=256"
_RUN_WORDS = "values of the recipe, e.g. optim.lr=3 data.batch_size=256; with --fast of the loader"
DEFAULT_BACKBONE = "resnet50"
_UNTRAINED = "the weights the run started from: the baseline"


def _sets(parser: argparse.ArgumentParser, data: str) -> Callable[..., Any]:
    add = parser.add_argument
    add("--data", type=Path, required=True, help=data)
    add("--test", type=Path, required=True, help="to test on: shards, or a folder of classes")
    add("--from", dest="source", choices=SOURCES, help="whose file --checkpoint is (default: ours)")
    add("--backbone", choices=FEATURES, help=f"with --from: its architecture ({DEFAULT_BACKBONE})")
    return add


def _linear_parser() -> argparse.ArgumentParser:
    parser = _common("linear", "A linear classifier on the frozen backbone.", _RUN_WORDS)
    add = _sets(parser, "shards to train on")
    add("--bn", choices=["train", "eval"], help="batch norm while training (the recipe's)")
    add("--recipe", type=Path, help="(configs/evaluate/linear_METHOD.yaml)")
    add(
        "--out",
        type=Path,
        help="folder of the probe's run (default: linear, or linear-bn-MODE where that is not the recipe's)",
    )
    add("--fast", action="store_true", help="fit on features that are extracted once")
    rates = f"with --fast: rates per 256 photos ({' '.join(map(str, RATES))})"
    add("--rates", type=float, nargs="+", help=rates)
    add("--untrained", action="store_true", help=f"with --fast: {_UNTRAINED}")
    return parser


def _finetune_parser() -> argparse.ArgumentParser:
    parser = _common("finetune", "The whole network, from some of the labels.", _RUN_WORDS)
    add = _sets(parser, "labelled shards (tools.subsets chooses photos, tools.shards --subset packs them)")
    add("--percent", type=int, choices=[1, 10], required=True, help="of the labels: the recipe")
    add("--any-subset", action="store_true", help="also if the manifest does not say that it is this subset")
    add("--recipe", type=Path, help="(configs/evaluate/finetune_METHOD_Npercent.yaml)")
    add("--out", type=Path, help="folder of the run (default: finetune-Npercent in the run's)")
    return parser


def _knn_parser() -> argparse.ArgumentParser:
    parser = _common("knn", "Weighted k-nearest neighbours.", _LOADER_WORDS)
    add = _sets(parser, "the photos that neighbours are among: shards, or a folder of classes")
    add("--k", type=int, default=K, help="neighbours (%(default)s)")
    add("--temperature", type=float, default=TEMPERATURE, help="of their weights (%(default)s)")
    add("--untrained", action="store_true", help=_UNTRAINED)
    return parser


def _gap_parser() -> argparse.ArgumentParser:
    parser = _common("background-gap", "Accuracy with other backgrounds.", _LOADER_WORDS)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="ImageNet-9's folder, or one like it")
    add("--train", type=Path, help="fit a linear classifier on these photos (default: the run's own)")
    add("--class-map", type=Path, help="JSON, {class: folder} (default: classes are the folders, by name)")
    add("--untrained", action="store_true", help=f"with --train: {_UNTRAINED}")
    return parser


PROTOCOLS: dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[..., Result]]] = {
    "linear": (_linear_parser, _linear),
    "finetune": (_finetune_parser, _finetune),
    "knn": (_knn_parser, _knn),
    "background-gap": (_gap_parser, _background_gap),
    "robustness": (robustness_parser, robustness),
}

REPORT = "report"
"""Computes nothing, so it needs no device and no ranks."""


def main() -> None:
    """Evaluate from the command line."""
    words = sys.argv[1:]
    if words[:1] == [REPORT]:
        from train.evaluate.report.program import main as report  # matplotlib is slow to import

        return report(words[1:])
    if not words or words[0] not in PROTOCOLS:
        top = argparse.ArgumentParser(
            "train.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        top.add_argument("protocol", choices=[*PROTOCOLS, REPORT], help="--help after it lists its options")
        top.parse_args(words[:1])
        return
    make_parser, evaluate = PROTOCOLS[words[0]]
    args = make_parser().parse_intermixed_args(words[1:])
    args.protocol = words[0]
    if getattr(args, "k", 1) < 1 or getattr(args, "temperature", 1) <= 0:
        raise UserError(f"--k={args.k} --temperature={args.temperature}: both must be above 0")
    device = choose_torch_device(override({}, _loader_words(args)).get("device", "auto"))
    with distributed.process_group(device):
        found = evaluate(args, device)
        ranks, main_rank = distributed.world_size(), distributed.rank() == 0
    if found is None or not main_rank:
        return  # a signal ended it, and the run has said so; or it has written its results itself
    result = {"protocol": _name(args), "checkpoint": str(args.checkpoint), "ranks": ranks, **found}
    path = _result_path(args, found)
    write_json(path, result)
    print(table(result))
    print(path)


if __name__ == "__main__":
    run_program(main, "the same command goes on with a probe's run, or the sets that are left")
