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
from scene.run_folder import RunFolder
from utils.errors import UserError
from utils.files import atomic_write
from utils.json_files import write_json


def open_run(run: TrainedRun) -> Document:
    """A trained run as a document; relative paths of its recipe begin in its folder."""
    names = read_names(run.folder.path / NAMES)
    model = LabelledModel.of(run.gaussians, run.classifier, run.votes, names)
    views = {camera.image_name: camera for camera in (*run.train_cameras, *run.test_cameras)}
    held_out = frozenset(camera.image_name for camera in run.test_cameras)
    return Document(model, Surroundings(views, held_out, run.folder.path))


def save_run(document: Document, run: TrainedRun, out: Path, overwrite: bool = False) -> None:
    """Write the document's model as a run in `out`: it may exist if it holds an edit, and `overwrite` is set.

    Raises:
        UserError: `out` holds something else, or an edit that may not be replaced.
    """
    folder = RunFolder(out)
    if out.exists() and any(out.iterdir()):
        if not folder.recipe.is_file():
            raise UserError(f"{out}: holds something else than an edit. Choose another --out.")
        if not overwrite:
            raise UserError(f"{out}: holds an edit. Replace it with --overwrite, or choose another --out.")
    for source, target in (
        (run.folder.cfg_args, folder.cfg_args),
        (run.folder.cameras, folder.cameras),
        (run.folder.input_points, folder.input_points),
    ):
        if source.is_file():
            with atomic_write(target) as temporary:
                shutil.copyfile(source, temporary)
    write_names(out / NAMES, dict(document.model.names))
    write_object(folder.saved(run.iteration), document.model)
    write_json(folder.recipe, {"of": str(run.folder.path), "iteration": run.iteration, **document.recipe()})
