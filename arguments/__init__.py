"""Options of every command: typed groups of fields that become flags, JSON keys and `cfg_args` entries.

A group is a dataclass whose fields are made by `option`. The precedence is explicit flag > JSON
(`--config_file`) > `cfg_args` of a run (only `parse_with_run`) > default, and every value is held to its type
and range whatever its source, so that a wrong one is reported before any work. All errors are `UserError`.
"""
# ruff: noqa: RUF009 - `option` returns a dataclass field

import argparse
import ast
import dataclasses
import difflib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from utils.errors import UserError
from utils.files import atomic_write

MAX_CLASSES = 65536  # ids are read from 16-bit masks
CFG_ARGS = "cfg_args"
# Options that Gaussian Grouping's commands look up in `cfg_args` and we do not have, at their defaults.
GAUSSIAN_GROUPING = {"n_views": 100, "random_init": False}


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


@dataclass
class ModelParams:
    """How a scene is read, and what of the model follows from it."""

    source_path: str = option("", "folder of the scene", flags=["-s"])
    model_path: str = option("", "folder of the run", flags=["-m"])
    images: str = option("images", "folder of the images inside the scene", flags=["-i"])
    resolution: int = option(
        -1,
        "1, 2, 4 or 8 divide the image size; a larger number is the width in pixels; "
        "-1 keeps it up to 1600 pixels",
        flags=["-r"],
        pattern=r"-1|[1248]|9|[1-9]\d+",
    )
    object_path: str = option("object_mask", "folder of the id masks inside the scene")
    white_background: bool = option(False, "white instead of black behind the scene", flags=["-w"])
    eval: bool = option(False, "hold out every 8th image for testing")
    train_split: bool = option(False, "train on the names in images_train/, test on the rest")
    sh_degree: int = option(3, "highest degree of the colour's spherical harmonics", low=0, high=3)
    num_classes: int = option(
        256, "number of ids, the largest id in the masks + 1 at least", low=2, high=MAX_CLASSES
    )
    data_device: str = option("cpu", "where the photographs are kept", pattern=r"cpu|cuda(:\d+)?")
    data_cache_mb: int = option(
        0,
        "MB of photographs and masks kept in memory, the rest is read when shown; 0 = half of what is free",
        low=0,
    )


@dataclass
class DeviceParams:
    """What the computation runs on."""

    device: str = option("auto", "auto takes a GPU where there is one", choices=["auto", "cpu", "cuda"])
    threads: int = option(0, "CPU threads; 0 = all cores", low=0)


@dataclass
class OptimizationParams:
    """3DGS's optimisation and Gaussian Grouping's two identity losses."""

    iterations: int = option(30_000, "training iterations", low=1)
    schedule_scale: float = option(
        1.0, "compress the whole schedule; 0.1 = a tenth of every iteration number", above=0
    )
    position_lr_init: float = option(
        1.6e-4, "learning rate of positions at the start, per scene extent", low=0
    )
    position_lr_final: float = option(
        1.6e-6, "learning rate of positions at the end, per scene extent", low=0
    )
    position_lr_delay_mult: float = option(0.01, "damping of that rate at the start", low=0, high=1)
    position_lr_max_steps: int = option(30_000, "iterations over which that rate decays", low=1)
    feature_lr: float = option(0.0025, "learning rate of colours (a twentieth of it above degree 0)", low=0)
    opacity_lr: float = option(0.05, "learning rate of opacities", low=0)
    scaling_lr: float = option(0.005, "learning rate of scales", low=0)
    rotation_lr: float = option(0.001, "learning rate of rotations", low=0)
    identity_lr: float = option(0.0025, "learning rate of identity encodings", low=0)
    classifier_lr: float = option(5e-4, "learning rate of the identity classifier", low=0)
    sh_interval: int = option(1000, "iterations per degree of spherical harmonics", low=1)
    lambda_dssim: float = option(0.2, "weight of D-SSIM beside L1; 0 = the paper's L1", low=0, high=1)
    percent_dense: float = option(
        0.01, "size, per scene extent, above which a Gaussian is split, not cloned", low=0
    )
    densification_interval: int = option(100, "iterations between densifications", low=1)
    opacity_reset_interval: int = option(3000, "iterations between opacity resets", low=1)
    densify_from_iter: int = option(500, "3DGS densification starts after this iteration", low=0)
    densify_until_iter: int = option(12_000, "3DGS densification ends at this iteration", low=0)
    densify_grad_threshold: float = option(
        2e-4, "mean screen-space gradient above which 3DGS densifies", low=0
    )
    min_opacity: float = option(0.005, "Gaussians below this opacity are pruned", low=0, high=1)
    visible_adam: bool = option(False, "Adam leaves Gaussians alone that the view does not show")
    max_gaussians: int = option(0, "densification stops at this number of Gaussians; 0 = no cap", low=0)
    identity_lambda_val: float = option(1.0, "weight of the 2D identity loss (alpha)", low=0)
    identity_lambda_by_rgb: bool = option(
        True, "alpha follows the view's colour loss L_rgb: identity_lambda_val x min(L_rgb / 0.04, 2)"
    )
    ignore_label: int = option(
        -1, "id whose pixels do not train the identity; -1 = none, 0 = unlabelled ones", low=-1
    )
    identity_geometry_grad: bool = option(True, "let the identity loss move geometry")
    reg3d_interval: int = option(5, "iterations between evaluations of the 3D loss", low=1)
    reg3d_k: int = option(5, "neighbours per sampled Gaussian (K)", low=1)
    reg3d_lambda_val: float = option(2.0, "weight of the 3D loss (beta)", low=0)
    reg3d_max_points: int = option(200_000, "Gaussians among which global neighbours are looked for", low=1)
    reg3d_sample_size: int = option(1000, "sampled Gaussians (M)", low=1)
    reg3d_normalize: bool = option(True, "divide the 3D loss by num_classes, as Gaussian Grouping does")
    reg3d_until_iter: int = option(30_000, "the 3D loss ends at this iteration", low=0)


@dataclass
class GradiSegParams:
    """The paper's own: identity gradient guided densification (IGD), local adaptive neighbours (LA-KNN)."""

    igd: bool = option(True, "identity gradient guided densification")
    igd_from_iter: int = option(12_000, "IGD starts after this iteration", low=0)
    igd_until_iter: int = option(15_000, "IGD ends at this iteration", low=0)
    igd_interval: int = option(100, "iterations between IGD steps", low=1)
    igd_grad_source: str = option(
        "identity",
        "loss whose gradient is monitored: the 2D identity loss or all",
        choices=["identity", "total"],
    )
    igd_rule: str = option(
        "mean_std", "how the splitting threshold is set", choices=["absolute", "mean_std", "quantile"]
    )
    igd_grad_threshold: float = option(2e-5, "threshold tau of the absolute rule", low=0)
    igd_std_factor: float = option(2.0, "k of the rule mean + k std", low=0)
    igd_quantile: float = option(0.95, "quantile of the quantile rule", low=0, high=1)
    igd_split: str = option("directional", "how a Gaussian is split", choices=["directional", "random"])
    igd_prune_large: bool = option(
        False, "IGD also prunes what 3DGS prunes for its size, as Algorithm 1 of the paper does"
    )
    la_knn: bool = option(True, "neighbours of the 3D loss along the negative position gradient")
    la_knn_from_iter: int = option(15_000, "LA-KNN replaces global neighbours after this iteration", low=0)
    la_knn_candidates: str = option(
        "50", "nearest Gaussians among which LA-KNN chooses, or 'all'", pattern=r"all|[1-9]\d*"
    )
    repair_masks: bool = option(True, "correct training masks that the rendered identities contradict")
    repair_from_iter: int = option(
        12_000, "first repair, after this iteration (not compressed, but not after IGD's start)", low=1
    )
    repair_until_iter: int = option(27_000, "no repair after this iteration", low=0)
    repair_interval: int = option(3000, "iterations between repairs", low=1)
    repair_margin: float = option(
        3.0, "how many times more probable than the mask's the new id must be", low=1
    )
    repair_lr_factor: float = option(
        1.0, "share to which the identity's learning rates fall after densify_until_iter", above=0, high=1
    )
    repair_lr_iters: int = option(4000, "iterations within which they fall there (not compressed)", low=1)
    correct_outlines: bool = option(
        True, "before repairs, move the masks' outlines to where the photographs change"
    )


@dataclass
class RunParams:
    """What one training command writes, and from where it starts."""

    config_file: str = option("", "JSON file of options; explicit flags override it")
    test_iterations: list[int] = option(
        [], "iterations at which the test views are scored, beside the last", low=1
    )
    save_iterations: list[int] = option([], "iterations at which the model is saved, beside the last", low=1)
    checkpoint_iterations: list[int] = option([], "iterations at which a checkpoint is saved", low=1)
    checkpoint_interval: int = option(0, "save a checkpoint every so many iterations; 0 = do not", low=0)
    start_checkpoint: str = option("", "checkpoint file to go on from")
    seed: int = option(0, "seed of every random choice", low=0)
    quiet: bool = option(False, "print results and errors only")
    overwrite: bool = option(False, "replace the run that the output folder holds")
    resume: bool = option(False, "go on from the newest checkpoint in the output folder")


@dataclass
class EditParams:
    """Which objects are removed (or kept), and how generously."""

    removal_thresh: float = option(
        0.3, "a Gaussian belongs to an object where the id's probability is above it", low=0, high=1
    )
    select_obj_id: list[int] = option([], "ids of the objects", flags=["--ids"], low=0, high=MAX_CLASSES - 1)
    convex_hull: bool = option(True, "also take the Gaussians inside the objects' convex hull")
    mode: str = option("remove", "remove the objects, or keep nothing else", choices=["remove", "keep"])


# Options that belong to a run rather than to the command that made it; only these come back from `cfg_args`.
RUN_GROUPS = (ModelParams, OptimizationParams, GradiSegParams)


def final_iteration(iterations: int, schedule_scale: float) -> int:
    """Last iteration of a run whose schedule is scaled."""
    return max(1, round(iterations * schedule_scale))


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
    run_values = {key: _checked(fields[key], value, str(path)) for key, value in stored.items()}
    return _fill(groups, {**run_values, **_config_values(groups, given), **given})


def write_cfg_args(model_path: str | os.PathLike[str], *groups: Any) -> None:
    """Write the options of a run as `cfg_args`: one line `Namespace(key=value, ...)`, keys sorted."""
    values = GAUSSIAN_GROUPING | {
        field.name: getattr(group, field.name) for group in groups for field in dataclasses.fields(group)
    }
    text = "Namespace(" + ", ".join(f"{key}={values[key]!r}" for key in sorted(values)) + ")"
    with atomic_write(Path(model_path, CFG_ARGS)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_cfg_args(model_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Options of a run, ours or Gaussian Grouping's. The text is parsed literal by literal, never evaluated.

    Raises:
        UserError: no such folder or file, or a text of another form.
    """
    path = Path(model_path, CFG_ARGS)
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder. -m takes the folder that train.py wrote.")
    if not path.is_file():
        raise UserError(
            f"{path}: not there, so the folder holds no run. Train with train.py -m {path.parent} first."
        )
    try:
        call = ast.parse(path.read_text(encoding="utf-8").strip(), mode="eval").body
        if not (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Namespace"
        ):
            raise ValueError("not a Namespace(...)")
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("arguments without a name")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError, RecursionError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). "
            "It must be one line Namespace(key=value, ...) of plain values."
        ) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")


def _fields(groups: Sequence[type]) -> Iterator[dataclasses.Field[Any]]:
    for group in groups:
        yield from dataclasses.fields(group)


def _element_type(field: dataclasses.Field[Any]) -> Any:
    return int if field.type == list[int] else field.type


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
            section.add_argument(*names, type=_element_type(field), help=text, **common)


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
    return {key: _checked(by_name[key], value, f"--{key}") for key, value in vars(namespace).items()}


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
    return {key: _checked(known[key], value, str(path)) for key, value in values.items()}


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
        model.eval |= model.train_split  # without it Gaussian Grouping drops the views that do not train
    if (run := by_type.get(RunParams)) and (opt := by_type.get(OptimizationParams)):
        last = final_iteration(opt.iterations, opt.schedule_scale)
        run.save_iterations = sorted({*run.save_iterations, last})
        run.test_iterations = sorted({*run.test_iterations, last})
    return tuple(filled)


def _checked(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    """`value` in the field's type; UserError naming `where` it came from if it does not fit."""
    if field.type == list[int]:
        if not isinstance(value, (list, tuple)):
            _reject(field, value, where, "a list of int")
        return [_checked_scalar(field, element, where) for element in value]
    return _checked_scalar(field, value, where)


def _checked_scalar(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    expected = _element_type(field)
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
