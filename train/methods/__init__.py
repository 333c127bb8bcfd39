"""Training methods, one file each: a MethodOptions and the Method it builds (`train.method`).

    moco.py          MoCo-v2
    byol.py          BYOL
    swav.py          SwAV
    rotnet.py        RotNet
    supervised.py    supervised training, the baseline
    probe.py         linear probes and fine-tuning (`train.evaluate`)

A file put here is a method: recipes can name it at once.
"""

import pkgutil
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Annotated

from pydantic import Field

from train.method import MethodOptions


def _all_options() -> list[type[MethodOptions]]:
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return [kind for kind in classes if issubclass(kind, MethodOptions) and kind is not MethodOptions]


AnyMethod = Annotated[reduce(or_, _all_options()), Field(discriminator="name")]
"""The options of any method; `name` says of which."""
