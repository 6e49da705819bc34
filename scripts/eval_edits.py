"""Replays a scene's true edits on a run, and scores its test views against what they look like then."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, option, parse_with_run
from gradiseg.editing.files import open_run
from gradiseg.editing.operations import Fill, Remove
from gradiseg.evaluation.edits import list_edits, markdown, mean_score, score_edit
from gradiseg.trained import load_run
from utils.errors import run_command
from utils.files import write_text
from utils.json_files import write_json
from utils.log import set_up
from utils.machine import environment


@dataclass
class EvaluationParams:
    """What is scored, and where the scores go."""

    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    inpainter: str = option("", "removals are filled, by this method (docs/editing.md)")
    json: str = option("", "where the scores go (default: eval_edits.json in the run), a .md file beside it")
    quiet: bool = option(False, "print nothing but errors")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the scores as JSON and Markdown and prints them."""
    groups = (ModelParams, DeviceParams, EvaluationParams)
    model, device, options = parse_with_run(
        groups, argv, prog="eval_edits.py", description=__doc__ or "", without=OF_SAVED_MODEL
    )
    set_up(options.quiet)
    scene = Path(model.source_path)
    edits = list_edits(scene)
    run = load_run(model, device, options.iteration)
    document = open_run(run)
    before = document.model
    scores = {}
    for edit in edits:
        step = edit.operation
        if options.inpainter and isinstance(step, Remove):
            step = Fill(step.select, options.inpainter)
        after = step.apply(before, document.surroundings)
        scores[edit.folder.name] = score_edit(edit, scene, before, after, run.test_cameras, run.background)
    path = Path(options.json) if options.json else run.folder.true_edits
    mean = asdict(mean_score(list(scores.values())))
    record = {"scene": scene.name, "inpainter": options.inpainter or None, "environment": environment()}
    write_json(
        path, record | {"edits": {name: asdict(score) for name, score in scores.items()}, "mean": mean}
    )
    text = f"# Edits of {scene.name}\n\n{markdown(scores)}"
    write_text(path.with_suffix(".md"), text)
    if not options.quiet:
        print(text)


if __name__ == "__main__":
    run_command(main)
