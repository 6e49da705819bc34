"""The command line: groups of options become flags, and `--help` shows first what people set."""

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from arguments.options import Field, checked, default_of, element_type, fields_of, spellings
from utils.errors import UserError

# Gaussian Grouping's scripts give these to every command, so they are taken also where they decide nothing.
ALWAYS_TAKEN = ("num_classes",)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")


def parse_flags(
    groups: Sequence[type],
    argv: Sequence[str] | None,
    prog: str | None,
    description: str,
    without: Collection[str] = (),
    of_run: Collection[str] = (),
) -> dict[str, Any]:
    """Explicit flags, checked. `--long-flag` means `--long_flag`."""
    parser = make_parser(groups, prog, description, without, of_run)
    arguments = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        _reject_argument(unknown[0], parser)
    by_name = {field.name: field for field in fields_of(groups)}
    return {key: checked(by_name[key], value, f"--{key}") for key, value in vars(namespace).items()}


def make_parser(
    groups: Sequence[type],
    prog: str | None,
    description: str,
    without: Collection[str] = (),
    of_run: Collection[str] = (),
) -> argparse.ArgumentParser:
    """The parser of a command: what people set, then the other fields of its groups, but those `without`.

    of_run: names of fields whose default is what the run was made with; few people set them.
    """
    program = Path(sys.argv[0]).name if prog is None else prog
    parser = _Parser(
        prog=program,
        usage=f"python {program} [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shown = [field for field in fields_of(groups) if field.name not in without]
    first = [field for field in shown if field.metadata["first"] and field.name not in of_run]
    sections = {"What people set": first}
    for group in groups:
        about = (group.__doc__ or group.__name__).split("\n")[0].rstrip(".")
        sections[about] = [f for f in dataclasses.fields(group) if f in shown and f not in first]
    for title, fields in sections.items():
        section = parser.add_argument_group(title)  # argparse leaves out those without flags
        for field in fields:
            _add_flag(section, field, _help_text(field, field.name in of_run))
    for field in fields_of(groups):
        if field.name in without and field.name in ALWAYS_TAKEN:
            _add_flag(parser, field, argparse.SUPPRESS)
    return parser


def _add_flag(section: argparse._ActionsContainer, field: Field, text: str) -> None:
    # Absent flags stay absent from the namespace: that is how an explicit one is told from a default.
    common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if field.type is bool:
        section.add_argument(*spellings(field), action="store_true", help=text, **common)
        section.add_argument(f"--no_{field.name}", action="store_false", help=argparse.SUPPRESS, **common)
        return
    if field.metadata["choices"]:
        common["choices"] = field.metadata["choices"]
    else:
        common["metavar"] = metavar(field)
    if field.type == list[int]:
        common["nargs"] = "+"
    elif field.metadata["bare"]:
        common |= {"nargs": "?", "const": field.metadata["bare"]}
    section.add_argument(*spellings(field), type=element_type(field), help=text, **common)


def metavar(field: Field) -> str:
    """What stands for the value of a flag: N, X, or the last word of its name."""
    of_type = {int: "N", float: "X"}.get(element_type(field))
    return field.metadata["metavar"] or of_type or field.name.rpartition("_")[2].upper()


def _help_text(field: Field, of_run: bool) -> str:
    default = default_of(field)
    if of_run:
        told = " (default: the run's)"
    elif default is True:
        told = f" (on; --no_{field.name} turns it off)"
    elif default is False or default in ("", []):
        told = ""
    else:
        told = f" (default: {default})"
    return (field.metadata["help"] + told).replace("%", "%%")


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value


def _reject_argument(argument: str, parser: argparse.ArgumentParser) -> NoReturn:
    if not argument.startswith("-"):
        raise UserError(
            f"{parser.prog}: unexpected argument {argument!r}. Options start with --; see --help."
        )
    name = argument.partition("=")[0]
    raise UserError(
        f"{parser.prog}: unknown option {name}. Nearest: {nearest(name, parser._option_string_actions)}."
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like `name`."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
