"""The runs below a folder, to choose from: what each shows, and its scores."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arguments.cfg_args import CFG_ARGS
from gradiseg.classifier import load_conv
from gradiseg.editing.object_files import NAMES, read_names
from gradiseg.labelled import LabelledModel
from gradiseg.votes import load_votes
from scene import GaussianModel
from scene.run_folder import SPLITS, RunFolder
from utils.errors import UserError
from utils.json_files import read_json

DEPTH = 3  # folders deep; scenes in experiments, runs in scenes
SCORES = (("results", "psnr", "PSNR {:.2f}"), ("lerf_mask", "miou", "mIoU {:.3f}"))


@dataclass(frozen=True)
class Found:
    """A run with a saved model: its name below the folder, a picture that was rendered, its scores."""

    name: str
    folder: RunFolder
    picture: Path | None
    scores: str


def find_runs(folder: Path) -> list[Found]:
    """The runs of a folder in the order of their names; edits are runs of their own.

    Raises: UserError where there is none.
    """
    found = [
        Found(name, run, picture_of(run), scores_of(run))
        for name, run in runs_of(folder).items()
        if run.path != folder
    ]
    if not found:
        raise UserError(f"{folder}: holds no run with a saved model. Train one: train.py -m {folder}/NAME.")
    return found


def runs_of(folder: Path) -> dict[str, RunFolder]:
    """The runs with a saved model in a folder and below it, by their names in order."""
    found = {}
    for depth in range(DEPTH + 1):
        for path in folder.glob("/".join([*"*" * depth, CFG_ARGS])):
            run = RunFolder(path.parent)
            try:
                run.latest_saved()
            except UserError:
                continue  # not trained far enough
            found[run.path.relative_to(folder).as_posix() if depth else folder.resolve().name] = run
    return dict(sorted(found.items()))


def objects_of(run: RunFolder, origin: NDArray[np.float64]) -> LabelledModel:
    """The last saved model of a run, without its scene, in a frame that begins at `origin` (3,).

    Raises: UserError where it cannot be read, or has no ids.
    """
    run.check_links()
    iteration = run.latest_saved()
    gaussians = GaussianModel(0)
    gaussians.origin = origin
    gaussians.load_ply(run.ply(iteration))
    votes = load_votes(run.votes(iteration), gaussians)
    return LabelledModel.of(
        gaussians, load_conv(run.classifier(iteration)), votes, read_names(run.path / NAMES)
    )


def picture_of(run: RunFolder) -> Path | None:
    """The first picture that render.py has made of its latest model."""
    for split in reversed(SPLITS):
        rendered = run.rendered(split)
        if rendered:
            return sorted((rendered[max(rendered)] / "renders").glob("*.png"))[0]
    return None


def scores_of(run: RunFolder) -> str:
    """The scores that were written, for people; empty where there are none that can be read."""
    said = (_score(getattr(run, attribute), key, form) for attribute, key, form in SCORES)
    return ", ".join(filter(None, said))


def _score(record: Path, key: str, form: str) -> str:
    try:
        return form.format(read_json(record)[key])
    except (UserError, KeyError, TypeError, ValueError):
        return ""
