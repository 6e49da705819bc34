"""`cfg_args`: the options of a run, in Gaussian Grouping's form."""

import ast
import dataclasses
import os
from pathlib import Path
from typing import Any

from arguments import foreign
from utils.errors import UserError
from utils.files import atomic_write

CFG_ARGS = "cfg_args"
# What Gaussian Grouping's commands look up in `cfg_args` beside our own, at values that change nothing.
LOOKED_UP = {name: foreign.KEYS[name] for name in ("n_views", "random_init")}


def write_cfg_args(model_path: str | os.PathLike[str], *groups: Any) -> None:
    """Write the options of a run as `cfg_args`: one line `Namespace(key=value, ...)`, keys sorted."""
    values = LOOKED_UP | {
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
        call = ast.parse(path.read_text(encoding="utf-8-sig").strip(), mode="eval").body
        if not (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Namespace"
        ):
            raise ValueError("not a Namespace(...)")
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("arguments without a name")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). "
            "It must be one line Namespace(key=value, ...) of plain values."
        ) from error
