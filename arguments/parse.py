"""From flags, JSON and `cfg_args` to groups of options."""

import argparse
import dataclasses
import difflib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from arguments.cfg_args import CFG_ARGS, read_cfg_args
from arguments.groups import RUN_GROUPS, ModelParams, OptimizationParams, RunParams, final_iteration
from arguments.options import checked, element_type
from utils.errors import UserError


def parse(
    groups: Sequence[type],
    argv: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    description: str = "",
) -> tuple[Any, ...]:
    """Fill `groups` from flags, the JSON of `--config_file` and defaults; one instance per group, in order.

    `save_iterations` and `test_iterations` always include the last iteration.
    Raises:
        UserError: unknown flag or key, wrong type, value out of range, unreadable file.
    """
    given = _parse_flags(groups, argv, prog, description)
    return _fill(groups, {**_config_values(groups, given), **given})


def parse_with_run(
    groups: Sequence[type],
    argv: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    description: str = "",
) -> tuple[Any, ...]:
    """`parse` for commands that load a run: what flags and JSON leave open comes from `cfg_args` of `-m`."""
    given = _parse_flags(groups, argv, prog, description)
    model_path = given.get("model_path")
    if not model_path:
        raise UserError("-m (--model_path) is required: the folder that train.py wrote.")
    path = Path(model_path, CFG_ARGS)
    fields = {
        field.name: field for group in groups if group in RUN_GROUPS for field in dataclasses.fields(group)
    }
    stored = {key: value for key, value in read_cfg_args(model_path).items() if key in fields}
    run_values = {key: checked(fields[key], value, str(path)) for key, value in stored.items()}
    return _fill(groups, {**run_values, **_config_values(groups, given), **given})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")


def _fields(groups: Sequence[type]) -> Iterator[dataclasses.Field[Any]]:
    for group in groups:
        yield from dataclasses.fields(group)


def _add_flags(parser: argparse.ArgumentParser, groups: Sequence[type]) -> None:
    for group in groups:
        section = parser.add_argument_group(group.__name__, (group.__doc__ or "").split("\n")[0])
        for field in dataclasses.fields(group):
            default = field.default if field.default is not dataclasses.MISSING else []
            off = f"; --no_{field.name} turns it off" if default is True else ""
            text = f"{field.metadata['help']} (default: {default!r}{off})".replace("%", "%%")
            names = [*field.metadata["flags"], f"--{field.name}"]
            # Absent flags stay absent from the namespace: that is how an explicit one is told from a default.
            common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
            if field.type is bool:
                section.add_argument(*names, action="store_true", help=text, **common)
                section.add_argument(
                    f"--no_{field.name}", action="store_false", help=argparse.SUPPRESS, **common
                )
                continue
            if field.type == list[int]:
                common["nargs"] = "+"
            elif field.metadata["choices"]:
                common["choices"] = field.metadata["choices"]
            elif field.metadata["bare"]:
                common |= {"nargs": "?", "const": field.metadata["bare"]}
            section.add_argument(*names, type=element_type(field), help=text, **common)


def _parse_flags(
    groups: Sequence[type], argv: Sequence[str] | None, prog: str | None, description: str
) -> dict[str, Any]:
    """Explicit flags, checked. `--long-flag` means `--long_flag`."""
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    _add_flags(parser, groups)
    arguments = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        _reject_argument(unknown[0], parser)
    by_name = {field.name: field for field in _fields(groups)}
    return {key: checked(by_name[key], value, f"--{key}") for key, value in vars(namespace).items()}


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
        f"{parser.prog}: unknown option {name}. Nearest: {_nearest(name, parser._option_string_actions)}."
    )


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def _config_values(groups: Sequence[type], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the JSON file named by `--config_file`, checked against `groups`."""
    path = given.get("config_file")
    if not path:
        return {}
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). --config_file takes a JSON file."
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold one JSON object {{key: value}}, not {type(values).__name__}.")
    known = {field.name: field for field in _fields(groups) if field.name != "config_file"}
    for key in values:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}. Nearest: {_nearest(key, known)!r}.")
    return {key: checked(known[key], value, str(path)) for key, value in values.items()}


def _fill(groups: Sequence[type], values: Mapping[str, Any]) -> tuple[Any, ...]:
    filled = []
    for group in groups:
        names = {field.name for field in dataclasses.fields(group)}
        filled.append(group(**{key: value for key, value in values.items() if key in names}))
    by_type = {type(instance): instance for instance in filled}
    if model := by_type.get(ModelParams):
        model.source_path = (
            os.path.abspath(model.source_path) if model.source_path else ""
        )  # cfg_args may move folder
    if (run := by_type.get(RunParams)) and (opt := by_type.get(OptimizationParams)):
        last = final_iteration(opt.iterations, opt.schedule_scale)
        run.save_iterations = sorted({*run.save_iterations, last})
        run.test_iterations = sorted({*run.test_iterations, last})
    return tuple(filled)
