"""A document: a labelled model under edit, what was done to it, and undo.

Commands and the viewer edit through this, so that what one does the other can replay.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradiseg.editing.fields import from_json, to_json
from gradiseg.editing.operations import OPERATIONS, Operation, Surroundings
from gradiseg.labelled import LabelledModel
from utils.errors import UserError
from utils.json_files import read_json


class Document:
    """A model, its surroundings, and the stack of operations that led to it."""

    def __init__(self, model: LabelledModel, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self._states = [model]
        self._done: list[Operation] = []
        self._undone: list[tuple[Operation, LabelledModel]] = []

    @property
    def model(self) -> LabelledModel:
        """As it is now."""
        return self._states[-1]

    @property
    def original(self) -> LabelledModel:
        """As it was opened."""
        return self._states[0]

    @property
    def operations(self) -> Sequence[Operation]:
        """What was done, undone operations left out."""
        return tuple(self._done)

    def apply(self, operation: Operation) -> LabelledModel:
        """Do an operation; what was undone before cannot be redone any more.

        Raises:
            UserError: it cannot be done; the document is as before.
        """
        model = operation.apply(self.model, self.surroundings)
        self._states.append(model)
        self._done.append(operation)
        self._undone.clear()
        return model

    def undo(self) -> bool:
        """Take the last operation back; False where there is none."""
        if not self._done:
            return False
        self._undone.append((self._done.pop(), self._states.pop()))
        return True

    def redo(self) -> bool:
        """Do again what was undone last; False where there is nothing."""
        if not self._undone:
            return False
        operation, model = self._undone.pop()
        self._done.append(operation)
        self._states.append(model)
        return True

    def recipe(self) -> dict[str, Any]:
        """What was done, as a recipe."""
        return {"operations": [entry_of(operation) for operation in self._done]}


def entry_of(operation: Operation) -> dict[str, Any]:
    """The entry of an operation in a recipe."""
    return {"operation": type(operation).__name__.lower(), **to_json(operation)}


def operation_of(entry: Any, where: str) -> Operation:
    """The operation that an entry of a recipe describes.

    Raises:
        UserError: no such operation, or fields that it does not take.
    """
    name = entry.get("operation") if isinstance(entry, Mapping) else entry
    if not isinstance(entry, Mapping) or not isinstance(name, str) or name not in OPERATIONS:
        raise UserError(f"{where}: operation {name!r} is none of {', '.join(OPERATIONS)}.")
    fields = {key: value for key, value in entry.items() if key != "operation"}
    made: Operation = from_json(OPERATIONS[name], fields, f"{where}: {name}")
    return made


def read_recipe(path: Path) -> list[Operation]:
    """The operations of a recipe, `{"operations": [{"operation": "remove", "select": 4}, ...]}`.

    Raises:
        UserError: not such a file; names the entry.
    """
    recipe = read_json(path)
    entries: Iterable[Any] | None = recipe.get("operations") if isinstance(recipe, dict) else None
    if not isinstance(entries, list):
        raise UserError(f'{path}: must be one object {{"operations": [...]}}.')
    return [operation_of(entry, f"{path}: operation {number}") for number, entry in enumerate(entries, 1)]
