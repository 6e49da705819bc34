"""Scores a run's masks of the test views, or any method's PNGs, against a scene's `test_mask/`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, option, parse, parse_with_run
from gradiseg.evaluation.lerf_mask import ORACLE, evaluate_folder, evaluate_run, markdown
from gradiseg.evaluation.text import TextParams, choose_by_text
from gradiseg.trained import load_run
from utils.errors import UserError, run_command
from utils.files import write_text
from utils.json_files import write_json
from utils.log import set_up


@dataclass
class EvaluationParams:
    """What is scored, and where the scores go."""

    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    ids: str = option(
        ORACLE, "'oracle' (best IoU with the training masks), or a JSON file {prompt: id or [ids]}"
    )
    pred: str = option(
        "", "score the PNGs <k>/<prompt>.png of this folder instead of a run's (needs -s or -m)"
    )
    json: str = option(
        "", "where the scores go, with a Markdown table beside it (default: eval_lerf_mask.json in the run)"
    )
    quiet: bool = option(False, "print nothing but errors")


GROUPS = (ModelParams, DeviceParams, EvaluationParams, TextParams)
WITHOUT = OF_SAVED_MODEL


def evaluate(argv: Sequence[str]) -> tuple[dict[str, Any], str, EvaluationParams, Path]:
    """The record, its title, the options and the file it goes to."""
    about: dict[str, Any] = {"prog": "eval_lerf_mask.py", "description": __doc__ or "", "without": WITHOUT}
    model, pipeline, options, words = parse(GROUPS, argv, **about)
    if model.model_path:
        model, pipeline, options, words = parse_with_run(GROUPS, argv, **about)
    set_up(options.quiet)
    if words.text and (options.pred or options.ids != ORACLE):
        raise UserError("--text chooses the ids itself. Leave out --ids and --pred.")
    if not options.pred:
        if not model.model_path:
            raise UserError("-m (the folder of a run) or --pred (a folder of predicted masks) is required.")
        run = load_run(model, pipeline, options.iteration)
        source = Path(model.source_path)
        ids = choose_by_text(run, source, words) if words.text else options.ids
        record = evaluate_run(run, source, model.object_path, ids)
        return record, run.folder.path.name, options, Path(options.json or run.folder.lerf_mask)
    if not model.source_path:
        raise UserError("--pred needs -s: the scene whose test_mask/ the masks are scored against.")
    folder = Path(options.pred)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. --pred takes a folder of <k>/<prompt>.png.")
    record = evaluate_folder(folder, Path(model.source_path))
    return record, folder.name, options, Path(options.json or folder / "eval_lerf_mask.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the scores as JSON and Markdown and prints them."""
    record, title, options, path = evaluate(sys.argv[1:] if argv is None else argv)
    write_json(path, record)
    text = markdown(record, title)
    write_text(path.with_suffix(".md"), text)
    if not options.quiet:
        print(text)


if __name__ == "__main__":
    run_command(main)
