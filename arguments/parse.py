"""From flags, JSON and `cfg_args` to groups of options."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from arguments import foreign
from arguments.cfg_args import CFG_ARGS, read_cfg_args
from arguments.flags import ALWAYS_TAKEN, nearest, parse_flags
from arguments.groups import RUN_GROUPS, ModelParams, OptimizationParams, RunParams, final_iteration
from arguments.options import Field, checked, fields_of, names_of
from utils.errors import UserError
from utils.json_files import read_json


def parse(
    groups: Sequence[type],
    argv: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    description: str = "",
    without: Collection[str] = (),
) -> tuple[Any, ...]:
    """Fill `groups` from flags, the JSON of `--config_file` and defaults; one instance per group, in order.

    `save_iterations` and `test_iterations` always include the last iteration. Fields named in `without` have
    no flag: those that the command ignores or overwrites.
    Raises:
        UserError: unknown flag or key, wrong type, value out of range, unreadable file.
    """
    given = parse_flags(groups, argv, prog, description, without)
    return _fill(groups, {**_config_values(groups, given, without), **given})


def parse_with_run(
    groups: Sequence[type],
    argv: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    description: str = "",
    without: Collection[str] = (),
) -> tuple[Any, ...]:
    """`parse` for commands that load a run: what flags and JSON leave open comes from `cfg_args` of `-m`."""
    fields = {field.name: field for field in fields_of([group for group in groups if group in RUN_GROUPS])}
    of_run = fields.keys() - {"model_path"}
    given = parse_flags(groups, argv, prog, description, without, of_run)
    model_path = given.get("model_path")
    if not model_path:
        raise UserError("-m (--model_path) is required: the folder that train.py wrote.")
    path = Path(model_path, CFG_ARGS)
    stored = {key: value for key, value in read_cfg_args(model_path).items() if key in fields}
    run_values = {key: checked(fields[key], value, str(path)) for key, value in stored.items()}
    return _fill(groups, {**run_values, **_config_values(groups, given, without), **given})


def _config_values(
    groups: Sequence[type], given: Mapping[str, Any], without: Collection[str]
) -> dict[str, Any]:
    """Values of the JSON file named by `--config_file`, checked against `groups`."""
    path = given.get("config_file")
    if not path:
        return {}
    known: dict[str, Field] = {}
    for field in fields_of(groups):
        if field.name != "config_file" and (field.name not in without or field.name in ALWAYS_TAKEN):
            others = [flag[2:] for flag in field.metadata["flags"] if flag.startswith("--")]
            known |= dict.fromkeys([field.name, *others], field)
    values = {}
    for key, value in _read_config(path).items():
        if key in known:
            values[known[key].name] = checked(known[key], value, str(path))
        elif key in foreign.KEYS:
            foreign.check(key, value, path)
        else:
            raise UserError(f"{path}: unknown key {key!r}. Nearest: {nearest(key, known)!r}.")
    return values


def _read_config(path: str) -> dict[str, Any]:
    values = read_json(path, "--config_file takes a JSON file.")
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold one JSON object {{key: value}}, not {type(values).__name__}.")
    return values


def _fill(groups: Sequence[type], values: Mapping[str, Any]) -> tuple[Any, ...]:
    filled = []
    for group in groups:
        names = names_of(group)
        filled.append(group(**{key: value for key, value in values.items() if key in names}))
    by_type = {type(instance): instance for instance in filled}
    if model := by_type.get(ModelParams):
        for name in ("source_path", "cameras", "dataparser"):
            if getattr(model, name):  # cfg_args may move to another folder
                setattr(model, name, os.path.abspath(getattr(model, name)))
        model.eval |= model.train_split  # without it Gaussian Grouping drops the views that do not train
    if (run := by_type.get(RunParams)) and (opt := by_type.get(OptimizationParams)):
        last = final_iteration(opt.iterations, opt.schedule_scale)
        run.save_iterations = sorted({*run.save_iterations, last})
        run.test_iterations = sorted({*run.test_iterations, last})
    return tuple(filled)
