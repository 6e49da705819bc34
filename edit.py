"""Edits a trained run: removes, recolours, moves, copies, swaps, inserts objects. The result is a run.

    python edit.py -m output/run                                    the ids that there are
    python edit.py -m output/run recolour --select 4 --hue 120      an operation, or several in their order
    python edit.py -m output/run --recipe config/edit/swap.json     a recipe

The fields of an operation are those of its entry in a recipe, their values JSON: --translation '[0, 1, 0]'.
"""

import utils.openmp  # noqa: F401  # isort: skip

import argparse
import dataclasses
import difflib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, option, parse_with_run
from arguments.flags import make_parser
from gradiseg.editing.document import Document, operation_of, read_recipe
from gradiseg.editing.files import check_out, open_run, save_run
from gradiseg.editing.operations import OPERATIONS, Extract, Operation
from gradiseg.editing.placement import box_of
from gradiseg.evaluation.text import TextParams, choose_by_text
from gradiseg.finished.clicks import ClickParams
from gradiseg.trained import load_run
from scene.run_folder import RunFolder
from utils.errors import UserError, run_command
from utils.log import bar, set_up


@dataclass
class EditParams:
    """Which model is edited, by what, and where the result goes."""

    recipe: str = option("", "JSON file of operations", first=True)
    out: str = option(
        "", "folder of the edited run (default: edits/<recipe or operation> in the run)", first=True
    )
    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    overwrite: bool = option(False, "replace the edit that the folder holds")
    quiet: bool = option(False, "print nothing but errors")


GROUPS = (ModelParams, DeviceParams, EditParams, TextParams, ClickParams)
WITHOUT = (*OF_SAVED_MODEL, "text")


def own_parser() -> argparse.ArgumentParser:
    """The parser of the command's own flags."""
    return make_parser(GROUPS, "edit.py", help_text(), WITHOUT)


def split_operations(argv: Sequence[str]) -> tuple[list[str], list[Operation]]:
    """The command's own flags, and the operations that follow: `NAME --field value ...`, one after the other.

    The name of an operation that follows a flag with a value is that value.
    """
    alone = {name for action in own_parser()._actions if action.nargs == 0 for name in action.option_strings}
    places, value = [], False
    for place, word in enumerate(argv):
        if word in OPERATIONS and not value:
            places.append(place)
        elif not (places or value or word.startswith("-")):
            near = difflib.get_close_matches(word, OPERATIONS, n=1, cutoff=0.0)[0]
            raise UserError(f"edit.py: {word!r} is no operation. Nearest: {near!r}. See edit.py --help.")
        value = not value and word.startswith("-") and "=" not in word and word not in alone
    ends = [*places, len(argv)]
    parts = [argv[start:end] for start, end in pairwise(ends)]
    return list(argv[: ends[0]]), [operation_of_flags(part) for part in parts]


def operation_of_flags(words: Sequence[str]) -> Operation:
    """The operation that `NAME --field value ...` describes. A value that is no JSON is a text."""
    name, *rest = words
    entry: dict[str, Any] = {"operation": name}
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--") or not (equals or rest):
            raise UserError(
                f"edit.py: {name}: --field value expected, not {flag!r}. See edit.py {name} --help."
            )
        value = value if equals else rest.pop(0)
        try:
            entry[flag[2:].replace("-", "_")] = json.loads(value)
        except ValueError:
            entry[flag[2:].replace("-", "_")] = value
    return operation_of(entry, "edit.py")


def help_text() -> str:
    """The operations with their fields."""
    lines = [__doc__ or "", "operations:"]
    for name, operation in OPERATIONS.items():
        lines.append(f"  {name:<10} {(operation.__doc__ or '').splitlines()[0]}")
        fields = dataclasses.fields(operation)
        lines += [f"    --{item.name:<12} {item.metadata['help']}" for item in fields]
    return "\n".join(lines)


class Bar:
    """A progress bar for operations that tell how far they are; the others show none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None

    def __enter__(self) -> "Bar":
        return self

    def __call__(self, share: float) -> None:
        if self._bar is None:
            self._bar = bar(what=self._name, total=100, unit="%")
        self._bar.update(int(100 * share) - self._bar.n)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


def list_ids(document: Document) -> str:
    """Every id with its Gaussians and its box."""
    lines = [f"{'id':>5}  {'Gaussians':>9}  {'centre':<24} {'size':<24} name"]
    for id, count in document.model.counts().items():
        box = box_of(document.model.params["xyz"][document.model.ids == id].cpu())
        centre, size = (" ".join(f"{x:7.2f}" for x in vector.tolist()) for vector in (box.centre, box.size))
        lines.append(f"{id:>5}  {count:>9,}  {centre:<24} {size:<24} {document.model.names.get(id, '')}")
    return "\n".join(lines)


def apply_all(document: Document, operations: Sequence[Operation]) -> None:
    """Do the operations in their order, each with its bar."""
    for operation in operations:
        with Bar(type(operation).__name__.lower()) as told:
            document.surroundings = replace(document.surroundings, told=told)
            document.apply(operation)


def where_to(options: EditParams, run: RunFolder, changes: Sequence[Operation]) -> Path:
    """The folder of the edited run."""
    name = Path(options.recipe).stem if options.recipe else ""
    return Path(options.out) if options.out else run.edit(name or type(changes[0]).__name__.lower()).path


def main(argv: Sequence[str] | None = None) -> None:
    """Edits the run; the run itself stays as it is."""
    own, operations = split_operations(sys.argv[1:] if argv is None else argv)
    model, device, options, words, clicks = parse_with_run(
        GROUPS, own, prog="edit.py", description=help_text(), without=WITHOUT
    )
    set_up(options.quiet)
    if options.recipe:
        operations = [*read_recipe(Path(options.recipe)), *operations]
    run = load_run(model, device, options.iteration)
    document = open_run(run)
    if not operations:
        print(list_ids(document))
        return
    changes = [step for step in operations if not isinstance(step, Extract)]
    out = where_to(options, run.folder, changes) if changes else None
    if out:
        check_out(out, options.overwrite)  # before the work

    def find(text: str) -> Sequence[int]:
        return choose_by_text(run, Path(model.source_path), replace(words, text=text)).ids[text]

    segmenter = clicks.load(run.background.device)
    document.surroundings = replace(
        document.surroundings, find=find, segmenter=segmenter, overwrite=options.overwrite
    )
    apply_all(document, operations)
    if not out:
        return
    save_run(document, run, out, options.overwrite)
    if not options.quiet:
        print(f"{document.original.count:,} Gaussians before, {document.model.count:,} now: {out}")
        print(f"See it: python render.py -m {shlex.quote(str(out))}")


if __name__ == "__main__":
    run_command(main)
