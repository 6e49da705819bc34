"""The runs below a folder, to choose from: what each shows, and its scores."""

from dataclasses import dataclass
from pathlib import Path

from arguments.cfg_args import CFG_ARGS
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
    found = []
    for depth in range(1, DEPTH + 1):
        for path in sorted(folder.glob("/".join("*" * depth) + f"/{CFG_ARGS}")):
            run = RunFolder(path.parent)
            try:
                run.latest_saved()
            except UserError:
                continue  # not trained far enough
            name = path.parent.relative_to(folder).as_posix()
            found.append(Found(name, run, picture_of(run), scores_of(run)))
    if not found:
        raise UserError(f"{folder}: holds no run with a saved model. Train one: train.py -m {folder}/NAME.")
    return sorted(found, key=lambda run: run.name)


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
