"""The network that a result is of: which run it comes from, by which recipe, from which seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dali_bgaug.config import read_yaml
from dali_bgaug.errors import UserError
from train.config import RunConfig
from train.evaluate.probe import recipe_of as probe_recipe
from train.evaluate.report.recipes import Traits, changes, name_of, recipe_of, recipes, traits_of
from train.export import read_card, read_checkpoint

CARD = "backbone.json"
RETRAINED = "retrained"
"""A supervised network with a new linear classifier (the paper's appendix A.4.1)."""
IMPORTED = "imported"
METHODS = ("moco_v2", "byol", "swav", "rotnet", "supervised")
"""Of pre-training; each has a recipe of its linear probe."""


@dataclass(frozen=True)
class Network:
    """A network; those with one key are one row of a report."""

    origin: str
    """What makes its pre-training, but for seeds."""
    stem: str
    """Its recipe's name, or one like it."""
    variants: tuple[str, ...] = ()
    """What sets it apart from the network as its recipe leaves it."""
    seed: str = "–"
    traits: Traits = field(default_factory=dict)
    """Of its pre-training; empty where its config is not known."""
    recipe: str | None = None
    """The file of `configs/` that it was trained by, in essence."""
    classes: int | None = None
    """Of the photos it was pre-trained on."""
    mark: str = ""
    """What tells it from others that have all else in common: its file, or its weights."""

    @property
    def key(self) -> tuple[str, ...]:
        """The row."""
        return (self.origin, *self.variants)

    @property
    def name(self) -> str:
        """The row's name."""
        return ", ".join([self.stem, *self.variants])

    @property
    def changed(self) -> dict[str, Any]:
        """What its run has otherwise than the recipe."""
        return changes(self.traits, recipes()[self.recipe]) if self.recipe else {}

    def with_variant(self, variant: str) -> "Network":
        """Another row, of the same pre-training."""
        return replace(self, variants=(*self.variants, variant))


class _Stored(NamedTuple):
    """What a card or a checkpoint says of its run."""

    config: RunConfig
    data: dict[str, Any]
    step: int
    place: Path


def network_of(result: dict[str, Any], file: Path) -> Network:
    """The network that a result is of.

    Its run is looked for where the result says, then beside the result, where both were moved. A network
    whose config is nowhere is known by its weights.

    Args:
        result: of `train.evaluate`, as read from `file`.
        file: it lies beside or in the run, unless it was put elsewhere (`--json`).
    """
    shown = result.get("network", {})
    said = result.get("checkpoint")
    pretraining = shown.get("pretraining") or result.get("pretraining") or {}
    project = result.get("pretraining", {}).get("source")  # whose file it is, if it is no run of ours
    stored = _find(Path(said), file.parent, pretraining) if said and not project else None
    if stored is None:
        weights = shown.get("sha256") or result.get("weights") or said
        network = _unknown(weights, shown.get("name") or _name_of(said, project))
    else:
        network = _network(stored, Path(said))
    protocol = result["protocol"]
    if network.traits.get("method.name") == "supervised" and is_probe(protocol):
        network = network.with_variant(RETRAINED)
    return network.with_variant("untrained") if protocol.endswith("-untrained") else network


def is_probe(protocol: str) -> bool:
    """Whether a protocol trains a linear classifier by a recipe."""
    return protocol == "linear" or protocol.startswith("linear-bn-")


def _unknown(weights: str, name: str) -> Network:
    weights = weights.removeprefix("untrained ")
    return Network(f"weights {weights}", name, mark=f"weights {weights[:12]}")


def _name_of(said: str, project: str | None) -> str:
    return f"{Path(said).name} of {project}" if project else said


def _find(said: Path, beside: Path, pretraining: Mapping[str, Any] | None = None) -> _Stored | None:
    """What is stored where a network is said to be, or, if nothing is there, beside.

    pretraining: as results have it. A run that is another, put there since, is not it.
    """
    for place in (said, beside / said.name, beside / "checkpoints" / said.name, beside):
        if place.is_file() or (place / CARD).is_file() or (place / "checkpoints").is_dir():
            stored = _read(place)
            if stored is None or _is_of(stored.config, pretraining or {}):
                return stored
    return None


def _is_of(config: RunConfig, pretraining: Mapping[str, Any]) -> bool:
    own = {"method": config.method.name, "epochs": config.epochs, "seed": config.seed}
    if config.method.name == "probe":
        own = {name: getattr(config.method.pretraining, name) for name in own}
    return all(pretraining.get(name) in (None, value) for name, value in own.items())


@cache
def _read(place: Path) -> _Stored | None:
    """What is stored of a run's folder, a checkpoint, or an export; None of another project's file."""
    if place.is_dir():
        card = place / CARD
    elif place.parent.name == "checkpoints":
        card = place.parent.parent / CARD
    else:
        card = place.with_suffix(".json")
    try:
        record = read_card(card) if card.is_file() else None
        checkpoint = read_checkpoint(place) if record is None else None
    except UserError:
        if card.is_file():
            raise
        return None
    values = checkpoint.run_config() if record is None else record.config
    found = checkpoint if record is None else record
    config = RunConfig.stored(dict(values), f"{place}: config")
    return _Stored(config, dict(found.data), found.step, place)


def _network(stored: _Stored, said: Path) -> Network:
    config, data = stored.config, stored.data
    if config.method.name == "probe":
        return _of_probe(stored)
    traits = traits_of(config)
    origin, variants, mark = str(sorted(traits.items())), [], ""
    seed = f"{config.seed} (data {config.data.seed})" if config.data.seed else str(config.seed)
    if config.init is not None:
        started = _find(config.init, stored.place.parent)
        begun = _network(started, config.init) if started else _unknown(str(config.init), str(config.init))
        origin += f" from {begun.key}"
        variants.append(f"from {begun.name}")
        seed += "" if begun.seed == "–" else f" (from {begun.seed})"
    if "imported_from" in data:
        origin += f" imported {data.get('sha256')}"
        variants.append(IMPORTED)
        mark = f"{data['imported_from']} {str(data.get('sha256'))[:8]}"
    if said.parent.name == "checkpoints" and said.stem not in ("latest", f"step-{stored.step:08d}"):
        variants.append(said.stem)
    shown = {"traits": traits, "recipe": recipe_of(traits), "classes": data.get("classes"), "mark": mark}
    return Network(origin, name_of(traits), tuple(variants), seed, **shown)


def _of_probe(probe: _Stored) -> Network:
    """The network that a classifier was trained on: its row, or one beside it, unless the classifier is the
    linear one of the method's own recipe."""
    options = probe.config.method
    project = options.pretraining.source
    stored = None if project else _find(options.checkpoint, probe.place.parent)
    if stored is None:
        network = _unknown(str(options.weights), _name_of(str(options.checkpoint), project))
        method = options.pretraining.method
    else:
        network, method = _network(stored, options.checkpoint), stored.config.method.name
    if method == "supervised" and options.freeze:
        network = network.with_variant(RETRAINED)
    if options.freeze and method in METHODS and options.backbone_bn == own_bn(method):
        return network
    return network.with_variant(_own_words(probe))


def _own_words(probe: _Stored) -> str:
    """A classifier's variant, where it is not the usual one."""
    if not probe.config.method.freeze:
        return f"fine-tuned on {probe.data.get('photos', '?')} photos"
    return f"probe with BN {probe.config.method.backbone_bn}"


@cache
def own_bn(method: str) -> str:
    """The mode of batch norm in linear probes of a method, by its recipe."""
    return read_yaml(probe_recipe("linear", method))["method"].get("backbone_bn", "train")
