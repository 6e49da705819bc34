"""How an option is declared, and how a value is held to what was declared."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from utils.errors import UserError


def option(
    default: Any,
    help: str,
    *,
    flags: Sequence[str] = (),
    choices: Sequence[str] = (),
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    pattern: str | None = None,
    bare: str | None = None,
) -> Any:
    """A field of a group: default, help text, extra `flags`, and the values allowed.

    `low` and `high` are inclusive, `above` is not. String fields with a `pattern` also take JSON's
    integers. `bare` is the value of a flag that is given without one.
    """
    allowed = {"choices": tuple(choices), "low": low, "above": above, "high": high, "pattern": pattern}
    metadata = {"help": help, "flags": tuple(flags), "bare": bare, **allowed}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def element_type(field: dataclasses.Field[Any]) -> Any:
    """Type of one value of a field."""
    return int if field.type == list[int] else field.type


def checked(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    """`value` in the field's type; UserError naming `where` it came from if it does not fit."""
    if field.type == list[int]:
        if not isinstance(value, (list, tuple)):
            _reject(field, value, where, "a list of int")
        return [_checked_scalar(field, element, where) for element in value]
    return _checked_scalar(field, value, where)


def _checked_scalar(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    expected = element_type(field)
    if expected is float and type(value) is int:
        value = float(value)
    if expected is str and type(value) is int and field.metadata["pattern"]:
        value = str(value)
    if type(value) is not expected:  # exact: a bool is an int to isinstance
        _reject(field, value, where, expected.__name__)
    allowed = field.metadata
    if isinstance(value, float) and not math.isfinite(value):
        _reject(field, value, where, "a finite number")
    if allowed["choices"] and value not in allowed["choices"]:
        _reject(field, value, where, "one of " + ", ".join(allowed["choices"]))
    if allowed["pattern"] and not re.fullmatch(allowed["pattern"], str(value)):
        _reject(field, value, where, f"as follows: {allowed['help']}")
    if allowed["low"] is not None and value < allowed["low"]:
        _reject(field, value, where, f"at least {allowed['low']}")
    if allowed["above"] is not None and value <= allowed["above"]:
        _reject(field, value, where, f"above {allowed['above']}")
    if allowed["high"] is not None and value > allowed["high"]:
        _reject(field, value, where, f"at most {allowed['high']}")
    return value


def _reject(field: dataclasses.Field[Any], value: Any, where: str, expected: str) -> NoReturn:
    raise UserError(f"{where}: {field.name} must be {expected}, not {value!r} ({type(value).__name__}).")
