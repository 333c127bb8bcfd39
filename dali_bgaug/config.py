"""Strict configuration: YAML files that may extend one another, read into pydantic models.

A config is a tree of `Options` models, each defined beside the code it configures. Unknown keys and wrong
types are errors that name the file, the key and the value.
"""

import json
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dali_bgaug.errors import UserError

Model = TypeVar("Model", bound="Options")


class Options(BaseModel):
    """Base of every config model: no unknown keys, no silent conversions, immutable once read."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def replaced(self: "Model", **values: Any) -> "Model":
        """A copy with other values of fields, checked as if all had been given (`model_copy` checks nothing).

        Raises:
            ValidationError: these values cannot be, or not together with the others.
        """
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | values)


Range = Annotated[tuple[float, float], Field(strict=False)]
"""Two numbers; a list will do."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; its key `extends` names a file beside it, or a list of them, that it overrides.

    All files that are reached are laid over one another in one order, each once, however many paths lead to
    it: what a file extends comes before it, and of a list the first comes first.

        extends: [full.yaml, swaps.yaml]     full and swaps both extend base:  base, full, swaps, this file
    """
    layers: dict[Path, dict[str, Any]] = {}
    _collect(path, layers, ())
    values: dict[str, Any] = {}
    for layer in layers.values():
        values = merge(values, layer)
    return values


def _collect(path: Path, layers: dict[Path, dict[str, Any]], above: tuple[Path, ...]) -> None:
    """Add the values of `path` to `layers`, after those of the files it extends."""
    if not path.is_file():
        raise UserError(f"{path}: no such config file; the recipes are in configs/")
    place = path.resolve()
    if place in above:
        raise UserError(f"{path}: 'extends' goes round in a circle")
    if place in layers:
        return
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise UserError(f"{path}: byte {byte:#x} in line {line} is not UTF-8; save it in UTF-8") from error
    values = load_yaml(text, str(path))
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {type(values).__name__}")
    extends = values.pop("extends", [])
    parents = [extends] if isinstance(extends, str) else extends
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"{path}: extends={extends!r} must be the name of a YAML file beside it, or a list")
    for parent in parents:
        _collect(path.parent / parent, layers, (*above, place))
    layers[place] = values


class _Loader(yaml.SafeLoader):
    """YAML without what takes a program's time or stack: aliases, which can stand for billions of values or
    for themselves, and nesting that no config has.

    Plain words are read as in YAML 1.2: 1e-3 is a number, and 1:30, no, 2024_01 and 2024-01-01 are text.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise UserError(f"line {line}: an alias (*); write the values out, or use 'extends'")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise UserError(f"line {self.peek_event().start_mark.line + 1}: nested more than {_DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_DEEPEST = 20
_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), [*"~nN", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), [*"tTfF"]
)
_FIRST = list("-+.0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9]\d*)$"), _FIRST)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$"), _FIRST
)


def load_yaml(text: str, source: str) -> Any:
    """Read YAML: plain values, without aliases. source: where it is from, for errors."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-13-45, as a date
        raise UserError(f"{source}: not valid YAML: {error}") from error


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values of `over` replace those of `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def override(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply overrides of a command line, `a.b=value`: numbers (`1e-3`), `true`, `false`, `null`, YAML in
    brackets, braces or quotes (`[1, 2]`), and else text as it is (`/data/run #3`)."""
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UserError(f"'{assignment}' is not of the form key=value, e.g. data.batch_size=256")
        value = _read_value(text, assignment)
        for name in reversed(key.split(".")):
            value = {name: value}
        values = merge(values, value)
    return values


class _Float(float):
    """A number that knows how it was written: where a path is wanted, `1e5` is a folder's name."""

    text: str


def _read_value(text: str, assignment: str) -> Any:
    """The value of `key=text`."""
    if text[:1] in ("[", "{", '"', "'"):
        if " #" in text and text[-1] not in "]}\"'":
            raise UserError(f"'{assignment}': ends in a comment; leave it out, or put all of it in quotes")
        return load_yaml(text, assignment)
    kind = _Loader("").resolve(yaml.ScalarNode, text, (True, False))
    if kind == "tag:yaml.org,2002:float":
        value = _Float(text)
        value.text = text
        return value
    return text if kind == "tag:yaml.org,2002:str" else load_yaml(text, assignment)


def validate(model: type[Model], values: dict[str, Any], source: str) -> Model:
    """Build `model` from plain values; every problem becomes a line of one UserError."""
    try:
        # As JSON, where a list is a tuple and a text a path, and everything else stays strict.
        return model.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        if (named := _with_paths(values, error)) != values:
            return validate(model, named, source)
        lines = [_explain(problem, model) for problem in error.errors()]
        raise UserError("\n  ".join([f"{source}:", *lines])) from error


def _with_paths(values: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """The values with text for numbers where paths are wanted: folders called 2024, or 1e5."""
    for problem in error.errors():
        loc, value = problem["loc"], cast(Any, values)
        for key in loc:
            value = value.get(key) if isinstance(value, dict) else None
        if problem["type"] == "path_type" and type(value) in (int, _Float):
            change: Any = getattr(value, "text", str(value))
            for key in reversed(loc):
                change = {key: change}
            values = merge(values, change)
    return values


def _explain(problem: Any, model: type[Options]) -> str:
    key = ".".join(map(str, problem["loc"])) or "the whole config"
    if problem["type"] == "extra_forbidden":
        *place, name = problem["loc"]
        nearest = get_close_matches(str(name), _keys_at(model, place), 1)
        meant = f" (did you mean {nearest[0]}?)" if nearest else ""
        return f"{key}: unknown key (value {problem['input']!r}); remove it or correct its spelling{meant}"
    if problem["type"] == "missing":
        return f"{key}: missing; give it a value"
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    # A whole section says too much to be shown; its message names what is wrong in it.
    return (
        f"{key}: {message}"
        if isinstance(problem["input"], dict)
        else f"{key}={problem['input']!r}: {message}"
    )


def _keys_at(model: type[Options], place: list[str | int]) -> list[str]:
    """The keys that may be at a place of a config."""
    sections = [model]
    for key in place:
        below = [section.model_fields[key].annotation for section in sections if key in section.model_fields]
        named = [section for section in sections if _name_of(section) == key]  # one of a union
        sections = [found for part in below for found in _sections(part)] or named or sections
    return [key for section in sections for key in section.model_fields]


def _name_of(section: type[Options]) -> Any:
    return section.model_fields["name"].default if "name" in section.model_fields else None


def _sections(annotation: Any) -> list[type[Options]]:
    """The models in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]
