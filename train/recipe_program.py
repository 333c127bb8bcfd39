"""The command line of a training by a recipe that goes on by itself: read the recipe, print it or train."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dali_bgaug.config import Options, override, read_yaml, validate
from dali_bgaug.processes import follow_launcher

Config = TypeVar("Config", bound=Options)
Loaded = tuple[type[Config], Callable[[Config, Path], None]]
"""The type of a config, and the training by one into a folder."""


def recipe_program(
    prog: str, title: str, load: Callable[[], Loaded[Config]], *, recipe: str, words: str
) -> None:
    """Read the recipe, print it or train.

    Args:
        prog, title: of the program, for `--help`.
        load: imports what takes long, once arguments are known to be right.
        recipe, words: examples of a recipe and of overrides.
    """
    parser = argparse.ArgumentParser(prog=prog, description=title)
    add = parser.add_argument
    add("--config", type=Path, required=True, help=f"a recipe, e.g. {recipe}")
    add("--out", type=Path, required=True, help="folder of the training; what is there goes on")
    add("--print", action="store_true", help="print the resolved config and stop")
    add("overrides", nargs="*", metavar="key=value", help=words)
    args = parser.parse_intermixed_args()
    model, train = load()
    config = validate(model, override(read_yaml(args.config), args.overrides), str(args.config))
    if args.print:
        print(config.model_dump_json(indent=1))
        return
    follow_launcher()
    train(config, args.out)
