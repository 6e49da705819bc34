"""JSON files, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

from utils.errors import SceneError
from utils.files import atomic_write


def read_json(path: Path) -> Any:
    """Parses a JSON file.

    Raises:
        SceneError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SceneError(f"{path}: cannot be read as JSON ({error}).") from error


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def write_json(path: Path, record: object) -> None:
    """Writes a record as readable JSON, making its folder."""
    write_text(path, json.dumps(record, indent=2) + "\n")
