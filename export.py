"""Writes a run's Gaussians for other programs: PLY, .splat, .glb, or a page for a browser.

    python export.py -m output/run                                  the scene as 3DGS's PLY
    python export.py -m output/run --per_object --format splat      every object alone
    python export.py -m output/run --select 4 --page                one object, and a page that shows it

Beside each file lie the ids of its rows (.ids.npy) and their names (.objects.json), with which
`python edit.py -m output/run import --source FILE` brings it back. Runs that edit.py wrote are runs, too.
"""

import utils.openmp  # noqa: F401  # isort: skip

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, option, parse_with_run
from gradiseg.editing.files import open_run
from gradiseg.editing.object_files import ids_beside, labels_differ
from gradiseg.export.exported import export, objects_of, upwards
from gradiseg.export.page import write_page
from gradiseg.labelled import LabelledModel
from gradiseg.selection.expression import Chooser
from gradiseg.trained import TrainedRun, load_run
from scene.formats.files import FORMATS
from utils.errors import UserError, run_command
from utils.log import set_up


@dataclass
class ExportParams:
    """What is exported, in which format, and where to."""

    format: str = option(
        "ply",
        "; ".join(f"{item.name}: {item.what}" for item in FORMATS.values()),
        choices=tuple(FORMATS),
        first=True,
    )
    select: str = option(
        "", "an id, a name, or a selection as in recipes (JSON); default: everything", first=True
    )
    per_object: bool = option(False, "a file for every object", first=True)
    page: bool = option(False, "also a page for browsers, one file that needs no network", first=True)
    out: str = option("", "folder (default: exports in the run)", first=True)
    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    overwrite: bool = option(False, "replace files of the same names")
    quiet: bool = option(False, "print nothing but errors")


def selected(run: TrainedRun, expression: str) -> LabelledModel:
    """The run's model, or what an expression selects of it."""
    document = open_run(run)
    if not expression:
        return document.model
    try:
        parsed = json.loads(expression)
    except ValueError:
        parsed = expression  # a name
    chosen = Chooser(document.model, document.surroundings.views, "--select")(parsed)
    if not bool(chosen.any()):
        raise UserError(f"--select: {expression} selects no Gaussian. Give another selection.")
    return document.model.rows(chosen)


def check_free(files: Mapping[Path, LabelledModel], pages: Sequence[Path]) -> None:
    """Raises where files, or labels of others, would be replaced."""
    remedy = "Replace it with --overwrite, or choose another --out."
    for path in (*files, *pages):
        if path.exists():
            raise UserError(f"{path}: is there. {remedy}")
    for path, part in files.items():
        if labels_differ(path, part):
            raise UserError(f"{ids_beside(path)}: belongs to another export. {remedy}")


def main(argv: Sequence[str] | None = None) -> None:
    """Exports the run."""
    model, device, options = parse_with_run(
        (ModelParams, DeviceParams, ExportParams),
        argv,
        prog="export.py",
        description=__doc__ or "",
        without=OF_SAVED_MODEL,
    )
    set_up(options.quiet)
    run = load_run(model, device, options.iteration)
    labelled = selected(run, options.select)
    out = Path(options.out) if options.out else run.folder.path / "exports"
    name = "selection" if options.select else "scene"
    parts = dict(objects_of(labelled)) if options.per_object else {name: labelled}
    if not parts:
        raise UserError("--per_object: every Gaussian has the id 0, which is no object. Leave it out.")
    files = {out / f"{stem}{FORMATS[options.format].suffix}": part for stem, part in parts.items()}
    page = out / f"{name}.html"
    if not options.overwrite:
        check_free(files, [page] if options.page else [])
    cameras = [*run.test_cameras, *run.train_cameras]
    up = upwards(torch.tensor([(-camera.R[:, 1]).tolist() for camera in cameras]))
    for path, part in files.items():
        written = export(path, part, options.format, up)
        if not options.quiet:
            print(f"{path}: {written.gaussians:,} Gaussians. {written.losses}.")
    if options.page:
        title = f"{run.folder.path.name}, {labelled.count:,} Gaussians"
        write_page(page, labelled, cameras, title, model.white_background)
        if not options.quiet:
            print(f"{page}: open it in a browser.")


if __name__ == "__main__":
    run_command(main)
