"""Replays a scene's true edits on a run, and scores its test views against what they look like then.

With --recipe instead: how much the recipe's recolourings and styles change outside of what they select.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, option, parse_with_run
from gradiseg.editing.document import entry_of, read_recipe
from gradiseg.editing.files import open_run
from gradiseg.editing.operations import Fill, Recolour, Remove, Style, choose
from gradiseg.evaluation.edits import TrueEdit, list_edits, markdown, mean_score, reach_of, score_edit
from gradiseg.trained import TrainedRun, load_run
from pretrained.lpips import ARCHITECTURES, HINT, load_lpips
from utils.errors import UserError, run_command
from utils.files import write_text
from utils.json_files import write_json
from utils.log import set_up
from utils.machine import environment


@dataclass
class EvaluationParams:
    """What is scored, and where the scores go."""

    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    edits: str = option("", "names of the edits to replay, with commas between; default: all")
    inpainter: str = option("", "removals are filled, by this method (docs/editing.md)")
    lpips: str = option(
        "none", "also LPIPS of the changed region, in the JSON", choices=(*ARCHITECTURES, "none")
    )
    recipe: str = option("", "recipe whose recolourings and styles are held against what lies around them")
    json: str = option("", "where the scores go (default: eval_edits.json in the run), a .md file beside it")
    quiet: bool = option(False, "print nothing but errors")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the scores as JSON and Markdown and prints them."""
    groups = (ModelParams, DeviceParams, EvaluationParams)
    model, device, options = parse_with_run(
        groups, argv, prog="eval_edits.py", description=__doc__ or "", without=OF_SAVED_MODEL
    )
    set_up(options.quiet)
    run = load_run(model, device, options.iteration)
    scene = Path(model.source_path)
    record, text = reach(run, options) if options.recipe else true_edits(run, scene, options)
    path = Path(options.json) if options.json else run.folder.true_edits
    write_json(path, {"scene": scene.name, "environment": environment(), **record})
    write_text(path.with_suffix(".md"), text)
    if not options.quiet:
        print(text)


def true_edits(run: TrainedRun, scene: Path, options: EvaluationParams) -> tuple[dict[str, Any], str]:
    """Scores of the scene's true edits: a record and its text."""
    edits = chosen_edits(scene, options.edits)
    document = open_run(run)
    before = document.model
    lpips = None if options.lpips == "none" else load_lpips(options.lpips)
    if options.lpips != "none" and lpips is None:
        raise UserError(f"--lpips: {HINT}")
    scores = {}
    for edit in edits:
        step = edit.operation
        if options.inpainter and isinstance(step, Remove):
            step = Fill(step.select, options.inpainter)
        after = step.apply(before, document.surroundings)
        scores[edit.folder.name] = score_edit(
            edit, scene, before, after, run.test_cameras, run.background, lpips
        )
    record = {
        "inpainter": options.inpainter or None,
        "edits": {name: asdict(score) for name, score in scores.items()},
        "mean": asdict(mean_score(list(scores.values()))),
    }
    return record, f"# Edits of {scene.name}\n\n{markdown(scores)}"


def chosen_edits(scene: Path, names: str) -> list[TrueEdit]:
    """The true edits of these names, or all."""
    edits = {edit.folder.name: edit for edit in list_edits(scene)}
    wanted = [name.strip() for name in names.split(",")] if names else list(edits)
    for name in wanted:
        if name not in edits:
            raise UserError(f"--edits: {name!r} is none of {', '.join(edits)}.")
    return [edits[name] for name in wanted]


def reach(run: TrainedRun, options: EvaluationParams) -> tuple[dict[str, Any], str]:
    """What the recolourings and styles of a recipe change around what they select: a record and its text."""
    document, rows = open_run(run), []
    for step in read_recipe(Path(options.recipe)):
        before, after = document.model, document.apply(step)
        if isinstance(step, Recolour | Style):
            chosen = choose(before, document.surroundings, step.select, options.recipe)
            found = reach_of(before, after, chosen, run.test_cameras, run.background)
            rows.append({"entry": entry_of(step), "reach": asdict(found) if found else None})
    if not rows:
        raise UserError(f"{options.recipe}: recolours and restyles nothing. Name a recipe that does.")
    lines = [f"{json.dumps(row['entry'])}: {row['reach'] or 'no test view shows it'}" for row in rows]
    return {"recipe": rows}, "\n".join(["Differences of colours in [0, 1]:", "", *lines, ""])


if __name__ == "__main__":
    run_command(main)
