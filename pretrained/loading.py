"""Pretrained models of the extra `[masks]`, from a folder or the Hugging Face hub, and what to do without."""

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from utils.errors import UserError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def require_transformers() -> ModuleType:
    """The package `transformers`, imported when first needed: that takes seconds.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            "Text prompts and SAM need the package transformers. Install it: pip install -e '.[masks]'"
        ) from error


def load_pretrained(loader: Any, name: str, flag: str, example: str) -> Any:
    """`loader.from_pretrained(name)`.

    Args:
        name: a folder, or a name on the hub.
        flag: the option that takes it.
        example: a name on the hub that would do.

    Raises:
        UserError: says what to fetch and where to put it.
    """
    try:
        return loader.from_pretrained(name)
    except Exception as error:  # whatever the hub, a file or a field of a configuration raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        wanted = name if HUB_NAME.fullmatch(name) and not Path(name).exists() else example
        folder = f"models/{wanted.partition('/')[2]}"
        raise UserError(
            f"{flag} {name}: no model could be loaded from there ({reason}). Fetch one where there is a "
            f"network, hf download {wanted} --local-dir {folder}, and give {flag} {folder}."
        ) from error
