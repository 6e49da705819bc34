"""JSON files, written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_text


def read_json(path: str | os.PathLike[str], remedy: str = "") -> Any:
    """Parses a JSON file; `remedy` ends the message where it cannot be.

    Raises:
        UserError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}). {remedy}".rstrip()) from error


def write_json(path: str | os.PathLike[str], record: object) -> None:
    """Writes a record as readable JSON, making its folder."""
    write_text(path, json.dumps(record, indent=2) + "\n")
