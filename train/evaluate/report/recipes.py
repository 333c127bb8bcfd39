"""The recipes of `configs/`, and which of them a run's config is."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from dali_bgaug.config import merge, override, read_yaml, validate
from train.config import RunConfig

CONFIGS = Path(__file__).parents[3] / "configs"
Traits = dict[str, Any]
"""What makes a run, by dotted names of the config's keys: its identity but for the seeds."""
SEEDS = ("seed", "data.seed")
_ESSENCE = ("method.", "backbone", "epochs", "data.views.", "data.background.")
_FAMILY = ("method.name", "backbone", "epochs", "data.background.kind")
_FEW = 3


def traits_of(config: RunConfig) -> Traits:
    """The traits of a config."""
    flat: Traits = {}
    _flatten(json.loads(config.identity()), "", flat)
    if flat["data.background.kind"] == "none":  # how backgrounds would be replaced says nothing
        flat = {key: value for key, value in flat.items() if not key.startswith("data.background.")}
        flat["data.background.kind"] = "none"
    return {key: value for key, value in flat.items() if key not in SEEDS}


def _flatten(values: dict[str, Any], prefix: str, flat: Traits) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", flat)
        else:
            flat[f"{prefix}{key}"] = value


def essence(traits: Traits) -> Traits:
    """Method, backbone, epochs, views and backgrounds: what the paper tells its rows apart by."""
    return {key: value for key, value in traits.items() if key.startswith(_ESSENCE)}


@cache
def recipes() -> dict[str, Traits]:
    """The traits of every recipe, by its name; of two that are the same the longer name comes last."""
    found = {}
    for path in sorted(CONFIGS.glob("*.yaml"), key=lambda path: (len(path.stem), path.stem)):
        values = read_yaml(path)
        if "name" in values.get("method", {}):  # not one that others extend
            found[path.stem] = recipe_traits(values, str(path))
    return found


def recipe_traits(values: dict[str, Any], source: str, *words: str) -> Traits:
    """The traits of a recipe's values. words: `key=value` over them."""
    given = override(merge(values, {"data": {"shards": "."}}), list(words))
    return traits_of(validate(RunConfig, given, source))


def recipe_of(traits: Traits) -> str | None:
    """The name of the recipe that a run is by: equal in all, in essence, or in all but a little of it."""
    own = essence(traits)
    best = {name: (len(changes(own, each)), each != traits) for name, each in recipes().items()}
    near = [
        name
        for name, each in recipes().items()
        if best[name][0] <= _FEW and all(own[key] == each[key] for key in _FAMILY)
    ]
    return min(reversed(near), key=best.__getitem__, default=None)


def name_of(traits: Traits) -> str:
    """The recipe's name, with what differs in essence, or one like it: METHOD_SETTING_BACKGROUND."""
    if recipe := recipe_of(traits):
        different = changes(essence(traits), recipes()[recipe])
        return " ".join([recipe, *(f"{key}={value}" for key, value in different.items())])
    backbone = "" if traits["backbone"] == "resnet50" else f"_{traits['backbone']}"
    setting = f"{traits['epochs']}epochs"
    return f"{traits['method.name']}{backbone}_{setting}_{traits['data.background.kind']}"


def changes(traits: Traits, of: Traits) -> dict[str, Any]:
    """The traits that another has otherwise, or not at all."""
    return {key: value for key, value in traits.items() if of.get(key, ...) != value}
