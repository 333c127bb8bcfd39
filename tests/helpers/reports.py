"""Runs and results of evaluation written by hand: cards without weights, numbers that tests choose."""

import json
import sys
from pathlib import Path
from typing import Any

from dali_bgaug.config import merge, override, read_yaml, validate
from dali_bgaug.files import write_json
from tests.helpers.runs import ROOT
from train.config import RunConfig
from train.evaluate.__main__ import main
from train.records import Card


def write_run(
    folder: Path, recipe: str, *words: str, seed: int = 0, classes: int = 1000, **data: Any
) -> Path:
    """A run that has ended, by a recipe of `configs/` with `key=value` words: its card alone."""
    values = merge(read_yaml(ROOT / "configs" / f"{recipe}.yaml"), {"seed": seed, "data": {"shards": "/s"}})
    return write_card(folder, validate(RunConfig, override(values, list(words)), recipe), classes, **data)


def write_probe(folder: Path, of: Path, bn: str, freeze: bool = True, photos: int = 100) -> Path:
    """The folder of a classifier's run on the backbone of another."""
    method = {"name": "probe", "checkpoint": str(of), "weights": "w", "freeze": freeze, "backbone_bn": bn}
    values = {"method": method, "data": {"pipeline": "supervised", "shards": "/s"}, "epochs": 1}
    values = merge(values, {"optim": {"kind": "sgd", "lr": 1.0, "schedule": "steps"}})
    return write_card(folder, validate(RunConfig, values, "probe"), 1000, photos=photos)


def write_card(folder: Path, config: RunConfig, classes: int, **data: Any) -> Path:
    """A run's card."""
    card = Card(
        format="dali_bgaug backbone",
        version=1,
        architecture=config.backbone,
        features=2048,
        method=config.method.name,
        step=100,
        epochs=config.epochs,
        input={},
        metrics={},
        data={"classes": classes, **data},
        sha256="0" * 64,
        config=config.model_dump(mode="json"),
    )
    write_json(folder / "backbone.json", card.model_dump())
    return folder


def write_result(run: Path, name: str, **values: Any) -> Path:
    """A result in a run's folder; its protocol is `name`, unless it is said."""
    path = run / f"{name}.json"
    write_json(path, {"protocol": name, "checkpoint": str(run), "ranks": 1, "weights": "w", **values})
    return path


def write_top1(run: Path, name: str, top1: float, photos: int = 50000, **values: Any) -> Path:
    """A result of k-NN, or of a linear probe by MoCo-v2's recipe."""
    own: dict[str, Any] = {"k": 20, "temperature": 0.07, "bn": "eval"}
    if not name.startswith("knn"):
        own = {"recipe": "linear_moco_v2", "epochs": 120, "batch_size": 2048, "lr": 30.0, "bn": "train"}
    sets = {"data": {"photos": 1281167}, "test": {"photos": photos}}
    return write_result(run, name, **{"top1": top1, **own, **sets, **values})


def write_robustness(run: Path, sets: dict[str, dict[str, Any]], orientation: str = "ignored") -> Path:
    """A robustness result in a run's folder. sets: by name, each with a `protocol`, unless it is
    the name."""
    whole = {
        name: {"protocol": name, "metric": "top-1 accuracy", "photos": 10, "unread": [], **found}
        for name, found in sets.items()
    }
    network = {"name": run.name, "sha256": "w"}
    return write_result(run, "robustness", device="cpu", orientation=orientation, network=network, sets=whole)


def report(out: Path, *words: str | Path) -> tuple[dict[str, Any], str]:
    """The command's JSON and page."""
    argv, sys.argv = sys.argv, ["evaluate", "report", *map(str, words), f"--out={out}"]
    try:
        main()
    finally:
        sys.argv = argv
    return json.loads((out / "report.json").read_text()), (out / "report.md").read_text()


def tables(text: str) -> list[str]:
    """The tables of a page."""
    return [part for part in text.split("\n\n") if part.startswith("|")]
