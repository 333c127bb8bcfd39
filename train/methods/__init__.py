"""Training methods, one file each: a MethodOptions and the Method it builds (`train.method` says what these
are).

A file put here is a method: nothing else has to be entered anywhere.
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
