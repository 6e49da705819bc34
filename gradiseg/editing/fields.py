"""How an operation declares its fields, and how the values of a recipe are held to that.

A recipe is JSON, so every field has a kind that says which JSON values it takes. A wrong one is reported by
operation, field and remedy before anything is done.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError


def field(kind: str, help: str, default: Any = dataclasses.MISSING) -> Any:
    """A field of an operation; `kind` is one of `KINDS`. Without a default it must be given."""
    metadata = {"kind": kind, "help": help}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_vector(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 3 and all(map(_is_number, value))


# What a kind is called in messages, and which values it takes.
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "selection": (
        "a selection: an id, a name, a list or an object",
        lambda v: isinstance(v, int | str | list | dict),
    ),
    "number": ("a finite number", _is_number),
    "share": ("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1),
    "positive": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "count": ("a whole number from 1", lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0),
    "id": ("an id, a whole number from 0 to 65535", lambda v: type(v) is int and 0 <= v < 65536),
    "vector": ("[x, y, z]", _is_vector),
    "direction": ("[x, y, z], not all of them 0", lambda v: _is_vector(v) and any(v)),
    "colour": (
        "[red, green, blue], each from 0 to 1",
        lambda v: _is_vector(v) and all(0 <= c <= 1 for c in v),
    ),
    "matrix": (
        "three rows of three numbers",
        lambda v: isinstance(v, Sequence) and len(v) == 3 and all(map(_is_vector, v)),
    ),
    "text": ("a text that is not empty", lambda v: isinstance(v, str) and bool(v)),
    "path": ("a path", lambda v: isinstance(v, str) and bool(v)),
    "style": (
        "the number of a built-in style, or the path of a picture",
        lambda v: type(v) is int or (isinstance(v, str) and bool(v)),
    ),
    "truth": ("true or false", lambda v: isinstance(v, bool)),
}


def _written(value: Any, kind: str) -> Any:
    is_path = kind == "path" or (kind == "style" and isinstance(value, str) and not value.isdecimal())
    return str(Path(value).absolute()) if is_path else value


def from_json(operation: type, values: Mapping[str, Any], where: str) -> Any:
    """An instance of an operation with the fields that a recipe gives.

    Raises:
        UserError: an unknown or missing field, a value of another kind.
    """
    known = {item.name: item for item in dataclasses.fields(operation)}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise UserError(
                f"{where}: no field {key!r}. Nearest: {near[0]!r}." if near else f"{where}: no fields."
            )
        wanted, fits = KINDS[known[key].metadata["kind"]]
        if not fits(value) and not (value is None and known[key].default is None):
            raise UserError(f"{where}: {key} must be {wanted}, not {value!r}.")
    for name, item in known.items():
        if (
            name not in values
            and item.default is dataclasses.MISSING
            and item.default_factory is dataclasses.MISSING
        ):
            raise UserError(f"{where}: {name} is missing: {item.metadata['help']}.")
    return operation(**values)


def to_json(operation: Any) -> dict[str, Any]:
    """The fields of an operation that differ from their defaults; paths are absolute."""
    values = {}
    for item in dataclasses.fields(operation):
        value = getattr(operation, item.name)
        made = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        if value != made:
            values[item.name] = _written(value, item.metadata["kind"])
    return values
