"""Removes objects from a trained run, or keeps nothing but them, and renders what is left."""

import utils.openmp  # noqa: F401  # isort: skip

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from arguments import OF_SAVED_MODEL, DeviceParams, EditParams, ModelParams, option, parse_with_run
from gradiseg.editing.object_removal import edit_objects
from gradiseg.evaluation.views import clear_pictures, write_renders
from gradiseg.trained import TrainedRun, load_run
from scene.run_folder import CLASSIFIER, POINT_CLOUD
from utils.errors import run_command
from utils.files import atomic_write
from utils.json_files import write_json
from utils.log import set_up


@dataclass
class EditRunParams:
    """Which model is edited, and what is rendered of it."""

    config_file: str = option("", "JSON file of options; explicit flags override it", first=True)
    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    skip_train: bool = option(False, "leave out the training views")
    skip_test: bool = option(False, "leave out the test views")
    quiet: bool = option(False, "print nothing but errors")


GROUPS = (ModelParams, DeviceParams, EditParams, EditRunParams)
WITHOUT = OF_SAVED_MODEL


def save_and_render(run: TrainedRun, options: EditRunParams, record: dict[str, object]) -> None:
    """Writes the edited model with its classifier, and its renders."""
    saved = run.folder.edited(run.iteration)
    run.gaussians.save_ply(saved / POINT_CLOUD)
    with atomic_write(saved / CLASSIFIER) as temporary:
        shutil.copyfile(run.folder.classifier(run.iteration), temporary)
    write_json(run.folder.edit_record(run.iteration), record)
    for split, cameras, skip in (
        ("train", run.train_cameras, options.skip_train),
        ("test", run.test_cameras, options.skip_test),
    ):
        folder = run.folder.edited_renders(split, run.iteration)
        clear_pictures(folder.glob("*.png"))  # of an earlier edit, also where none follow
        if not skip:
            write_renders(folder, cameras, run.draw)


def main(argv: Sequence[str] | None = None) -> None:
    """Edits the Gaussians of a run and writes the result beside it; the run itself stays as it is."""
    model, pipeline, edit, options = parse_with_run(
        GROUPS, argv, prog="edit_object_removal.py", description=__doc__ or "", without=WITHOUT
    )
    set_up(options.quiet)
    run = load_run(model, pipeline, options.iteration)
    counts = edit_objects(run.gaussians, run.classifier, edit, run.votes)
    save_and_render(run, options, dataclasses.asdict(edit) | counts)
    if not options.quiet:
        ids = " ".join(map(str, edit.select_obj_id))
        print(
            f"{edit.mode} {ids}: {counts['selected']:,} Gaussians, {counts['by_hull']:,} of them by the hull"
        )
        if counts["flat"]:
            print(f"{counts['flat']} of the ids have no hull (fewer than 4 Gaussians, or all in one plane).")
        print(f"{counts['left']:,} Gaussians left: {run.folder.edited(run.iteration)}")


if __name__ == "__main__":
    run_command(main)
