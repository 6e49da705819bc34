"""Scores the objects of a run as they are cut out in 3D, each rendered alone, against their silhouettes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, option, parse_with_run
from gradiseg.evaluation.extracted import evaluate_extracted, markdown
from gradiseg.evaluation.lerf_mask import ORACLE
from gradiseg.trained import load_run
from utils.errors import run_command
from utils.files import write_text
from utils.json_files import write_json
from utils.log import set_up


@dataclass
class ExtractedParams:
    """What is scored, and where the scores go."""

    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    ids: str = option(
        ORACLE, "'oracle' (best IoU with the training masks), or a JSON file {prompt: id or [ids]}"
    )
    json: str = option(
        "", "where the scores go, with a Markdown table beside it (default: eval_extracted.json in the run)"
    )
    quiet: bool = option(False, "print nothing but errors")


GROUPS = (ModelParams, DeviceParams, ExtractedParams)
WITHOUT = OF_SAVED_MODEL


def main(argv: Sequence[str] | None = None) -> None:
    """Writes scores and pictures, and prints the scores."""
    model, pipeline, options = parse_with_run(
        GROUPS, argv, prog="eval_extracted.py", description=__doc__ or "", without=WITHOUT
    )
    set_up(options.quiet)
    run = load_run(model, pipeline, options.iteration)
    record = evaluate_extracted(run, Path(model.source_path), model.object_path, options.ids)
    path = Path(options.json or run.folder.extracted)
    write_json(path, record)
    text = markdown(record, run.folder.path.name)
    write_text(path.with_suffix(".md"), text)
    if not options.quiet:
        print(text)


if __name__ == "__main__":
    run_command(main)
