"""Recipes checked before the first of many trainings starts; `tools.cli.ask` starts it.

    python -m train.check < JOB

Reads `{name: values of a RunConfig}` as JSON, and prints a line of it: `configs`, the resolved config of
each, and `faults`, what is wrong with the others, by name.
"""

import json
import sys
from typing import Any

from dali_bgaug.config import validate
from dali_bgaug.errors import UserError, run_program
from train.config import RunConfig


def check(values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`configs` and `faults` of recipes, by name."""
    found: dict[str, dict[str, Any]] = {"configs": {}, "faults": {}}
    for name, own in values.items():
        try:
            found["configs"][name] = validate(RunConfig, own, name).model_dump(mode="json")
        except UserError as error:
            found["faults"][name] = str(error)
    return found


def main() -> None:
    """Check what stdin says."""
    print(json.dumps(check(json.load(sys.stdin))))


if __name__ == "__main__":
    run_program(main, "nothing was started")
