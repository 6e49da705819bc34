"""How an option is declared, and how a value is held to what was declared."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from utils.errors import UserError

Field = dataclasses.Field[Any]


def option(
    default: Any,
    help: str,
    *,
    why: str = "",
    first: bool = False,
    flags: Sequence[str] = (),
    choices: Sequence[str] = (),
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    pattern: str | None = None,
    bare: str | int | None = None,
    metavar: str = "",
) -> Any:
    """A field of a group: default, help text, other spellings (`flags`), and the values allowed.

    `why` says where the default comes from, for the table of options. What people set `first` heads `--help`.
    `low` and `high` are inclusive, `above` is not. String fields with a `pattern` also take JSON's
    integers. `bare` is the value of a flag that is given without one, `metavar` what stands
    for its value in help. JSON takes every long spelling as a key.
    """
    allowed = {"choices": tuple(choices), "low": low, "above": above, "high": high, "pattern": pattern}
    shown = {"help": help, "why": why, "first": first, "metavar": metavar}
    metadata = {**shown, **allowed, "flags": tuple(flags), "bare": bare}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def fields_of(groups: Sequence[type]) -> Iterator[Field]:
    """The fields of all groups, in order."""
    for group in groups:
        yield from dataclasses.fields(group)


def names_of(*groups: type) -> tuple[str, ...]:
    """Names of the fields of groups."""
    return tuple(field.name for field in fields_of(groups))


def default_of(field: Field) -> Any:
    """A field's default; lists are empty."""
    return [] if field.default is dataclasses.MISSING else field.default


def spellings(field: Field) -> list[str]:
    """The flags that name a field: short, by its name, others."""
    others = sorted(field.metadata["flags"], key=lambda flag: flag.startswith("--"))
    short = sum(not flag.startswith("--") for flag in others)
    return [*others[:short], f"--{field.name}", *others[short:]]


def element_type(field: Field) -> Any:
    """Type of one value of a field."""
    return int if field.type == list[int] else field.type


def allowed_values(field: Field) -> str:
    """The values that a field takes besides what its type says, for people; empty where it takes all."""
    allowed = field.metadata
    if allowed["choices"]:
        return ", ".join(allowed["choices"])
    low, above, high = (allowed[name] for name in ("low", "above", "high"))
    bounds = [(">=", low), (">", above), ("<=", high)]
    return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


def checked(field: Field, value: Any, where: str) -> Any:
    """`value` in the field's type; UserError naming `where` it came from if it does not fit."""
    if field.type == list[int]:
        if not isinstance(value, (list, tuple)):
            _reject(field, value, where, "a list of int")
        return [_checked_scalar(field, element, where) for element in value]
    return _checked_scalar(field, value, where)


def _checked_scalar(field: Field, value: Any, where: str) -> Any:
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


def _reject(field: Field, value: Any, where: str, expected: str) -> NoReturn:
    raise UserError(f"{where}: {field.name} must be {expected}, not {value!r} ({type(value).__name__}).")
