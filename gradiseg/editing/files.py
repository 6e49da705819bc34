"""Documents and folders: a run opened for editing, and an edited model saved as a run of its own.

What is saved is a run like any other to every command: options, cameras and model, and beside them the
recipe by which it was made. It has no training, so that it is not resumed.
"""

import shutil
from pathlib import Path

from gradiseg.editing.document import Document
from gradiseg.editing.object_files import NAMES, read_names, write_names, write_object
from gradiseg.editing.operations import Surroundings
from gradiseg.labelled import LabelledModel
from gradiseg.trained import TrainedRun
from scene.run_folder import SPLITS, RunFolder
from utils.errors import UserError
from utils.files import atomic_folder
from utils.json_files import write_json


def open_run(run: TrainedRun) -> Document:
    """A trained run as a document."""
    names = read_names(run.folder.path / NAMES)
    model = LabelledModel.of(run.gaussians, run.classifier, run.votes, names)
    views = {camera.image_name: camera for camera in (*run.train_cameras, *run.test_cameras)}
    held_out = frozenset(camera.image_name for camera in run.test_cameras)
    return Document(model, Surroundings(views, held_out))


def save_run(document: Document, run: TrainedRun, out: Path, overwrite: bool = False) -> None:
    """Write the document's model as a run in `out`: it may exist if it holds an edit, and `overwrite` is set.

    Renders and scores of that edit go with it; edits of it and files of others stay.

    Raises:
        UserError: `out` holds something else, or an edit that may not be replaced.
    """
    check_out(out, overwrite)
    with atomic_folder(out) as temporary:
        folder = RunFolder(temporary)
        for source in (run.folder.cfg_args, run.folder.cameras, run.folder.input_points):
            if source.is_file():
                shutil.copyfile(source, temporary / source.name)
        write_names(temporary / NAMES, document.model.names)
        write_object(folder.saved(run.iteration), document.model)
        recipe = {"of": str(run.folder.path), "iteration": run.iteration, **document.recipe()}
        write_json(folder.recipe, recipe)
        _carry_over(RunFolder(out), temporary)


def check_out(out: Path, overwrite: bool) -> None:
    """Raises unless an edit may be saved in `out`, see `save_run`."""
    if out.is_dir() and any(out.iterdir()):
        if not RunFolder(out).recipe.is_file():
            raise UserError(f"{out}: holds something else than an edit. Choose another --out.")
        if not overwrite:
            raise UserError(f"{out}: holds an edit. Replace it with --overwrite, or choose another --out.")
    elif out.is_file():
        raise UserError(f"{out}: a file, not a folder. Choose another --out.")


def _carry_over(old: RunFolder, new: Path) -> None:
    """Copy what is not of the old model."""
    own = {path.name for path in old.contents()} - {"edits"} | set(SPLITS)
    for path in old.path.iterdir() if old.path.is_dir() else ():
        if path.name in own or (new / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)
