"""Cleans the objects of a finished run: what is cut out of it is the object, and less of its neighbours.

    python clean_objects.py -m output/run --out output/clean

The model trains on for some hundred iterations in which Gaussians draw back from the pixels of other objects
(docs/method.md, "Boundary steps"). The run stays as it is; the result is a run of its own.
"""

import utils.openmp  # noqa: F401  # isort: skip

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, option, parse_with_run, write_cfg_args
from gradiseg.finished.cleaning import cleaning_of, moved
from gradiseg.finished.splat import fit
from gradiseg.trained import load_scene
from gradiseg.training import Training
from gradiseg.votes import Votes
from scene.run_folder import RunFolder
from utils.errors import UserError, run_command
from utils.general import seed_everything
from utils.json_files import write_json
from utils.log import set_up
from utils.steps import all_or_nothing


@dataclass
class CleanParams:
    """Which model is cleaned, for how long, and where it goes."""

    out: str = option("", "folder of the cleaned run", first=True)
    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    steps: int = option(800, "iterations; every second one is a boundary step", low=2)
    overwrite: bool = option(False, "replace the run that --out holds")
    seed: int = option(0, "seed of every random choice", low=0)
    quiet: bool = option(False, "print nothing but errors")


GROUPS = (ModelParams, DeviceParams, CleanParams)
WITHOUT = OF_SAVED_MODEL


def measured(training: Training, votes: Votes) -> dict[str, float]:
    """PSNR of the training views, and how much of the Gaussians' mass stands in pixels of other objects."""
    psnr = fit(training.model, training.cameras, training.background)
    return {"psnr": psnr, "impurity": votes.impurity()}


def clean(training: Training, steps: int) -> dict[str, Any]:
    """Take the steps; the record of what they changed.

    Raises: UserError on Ctrl-C or SIGTERM; nothing is written then.
    """
    votes = training.votes()
    before = measured(training, votes)
    with all_or_nothing("Cleaning", steps) as told:
        for _ in range(steps):
            training.step()
            told()
    after = training.votes()
    changed = moved(votes.ids, after.ids)
    return {"steps": steps, "before": before, "after": measured(training, after), "changed_ids": changed}


def describe(record: dict[str, Any]) -> str:
    """The record, for the terminal."""
    (psnr, impurity), (now, left) = (record[when].values() for when in ("before", "after"))
    count = sum(record["changed_ids"].values())
    return (
        f"PSNR of the training views {psnr:.2f} dB before, {now:.2f} now. In pixels of other objects stood "
        f"{impurity:.1%} of the Gaussians' mass, now {left:.1%}. {count:,} Gaussians changed hands."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Cleans the run. Nothing is written before all is done."""
    args, pipe, options = parse_with_run(
        GROUPS, argv, prog="clean_objects.py", description=__doc__ or "", without=WITHOUT
    )
    set_up(options.quiet)
    if not options.out:
        raise UserError("--out is required: the folder of the cleaned run.")
    folder = RunFolder.for_training(options.out, options.overwrite)
    seed_everything(options.seed)
    scene, iteration, classifier = load_scene(args, pipe, options.iteration)
    training = cleaning_of(args, scene, classifier, options.steps)
    record = {"of": args.model_path, "iteration": iteration, **clean(training, options.steps)}
    folder.begin(options.overwrite)
    write_cfg_args(options.out, replace(args, model_path=options.out))
    scene.folder = folder
    scene.write_start()
    training.save_model(folder)
    write_json(folder.cleaned, record)
    if not options.quiet:
        print(describe(record))
        print(f"See it: python render.py -m {options.out}")


if __name__ == "__main__":
    run_command(main)
