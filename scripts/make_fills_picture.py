"""Draws holes: a scene's true removals, each before, in truth, left open, and filled by every method.

python scripts/make_fills_picture.py -m RUN -s SCENE --inpainters clone biharmonic --out docs/images/fills.jpg
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

from arguments import DeviceParams, ModelParams, parse_with_run
from gradiseg.editing.document import Document
from gradiseg.editing.files import open_run
from gradiseg.editing.operations import Fill, Remove
from gradiseg.evaluation.edits import BEFORE, IDS, IMAGES, TrueEdit, changed_region, draw, list_edits
from gradiseg.evaluation.metrics import BoolArray
from gradiseg.trained import TrainedRun, load_run
from scene.cameras import Camera
from scene.masks import read_id_map
from utils.errors import UserError, run_command
from utils.image import read_image, to_uint8
from utils.sheet import captioned, grid, save_jpeg

AROUND = 1.2  # edge of what is cut out, over that of the hole


def largest_hole(edit: TrueEdit, scene: Path, cameras: Sequence[Camera]) -> tuple[Camera, BoolArray]:
    """The test view that the edit changes most, at the truth's size, and where (H, W)."""

    def changed(camera: Camera) -> BoolArray:
        name = f"{camera.image_name}.png"
        return changed_region(read_id_map(scene / BEFORE / name), read_id_map(edit.folder / IDS / name))

    camera = max(cameras, key=lambda camera: int(changed(camera).sum()))
    region = changed(camera)
    return camera.at_resolution(region.shape[1], region.shape[0]), region


def cut(picture: Tensor, region: BoolArray, edge: int) -> Image.Image:
    """The square of a picture (3, H, W) about a region (H, W), `edge` pixels wide."""
    spans = [np.flatnonzero(region.any(axis)) for axis in (1, 0)]  # rows, columns
    side = min(round(AROUND * max(np.ptp(span) + 1 for span in spans)), *region.shape)
    starts = [
        int(np.clip((span[0] + span[-1] + 1 - side) // 2, 0, length - side))
        for span, length in zip(spans, region.shape, strict=True)
    ]
    rows, columns = (slice(start, start + side) for start in starts)
    pixels = to_uint8(picture[:, rows, columns]).permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(pixels).resize((edge, edge), Image.Resampling.BICUBIC)


def row(
    edit: TrueEdit, scene: Path, run: TrainedRun, document: Document, inpainters: Sequence[str], edge: int
) -> list[Image.Image]:
    """The hole of a removal: before, in truth, left open, filled by each method."""
    camera, region = largest_hole(edit, scene, run.test_cameras)
    remove = edit.operation
    assert isinstance(remove, Remove)  # as `removes` says
    steps = {"open": remove, **{name: Fill(remove.select, name) for name in inpainters}}
    truth = next((edit.folder / IMAGES).glob(f"{camera.image_name}.*"))
    pictures = {
        edit.folder.name: draw(document.model, camera, run.background)[0],
        "truth": read_image(truth),
    }
    for name, step in steps.items():
        after = step.apply(document.model, document.surroundings)
        pictures[name] = draw(after, camera, run.background)[0]
    return [captioned(cut(picture, region, edge), name) for name, picture in pictures.items()]


def main(argv: Sequence[str] | None = None) -> None:
    """Writes one picture, a row for each removal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-m", "--model_path", required=True, help="run")
    parser.add_argument("-s", "--source_path", required=True, help="scene with true edits")
    parser.add_argument("--inpainters", nargs="+", required=True, help="methods, see docs/editing.md")
    parser.add_argument("--edge", type=int, default=150, help="of a picture, in pixels (default: 150)")
    parser.add_argument("--out", type=Path, required=True, help="JPEG file")
    options = parser.parse_args(argv)
    flags = ["-m", options.model_path, "-s", options.source_path]
    model, device = parse_with_run((ModelParams, DeviceParams), flags)
    run, scene = load_run(model, device), Path(options.source_path)
    document = open_run(run)
    edits = [edit for edit in list_edits(scene) if edit.removes]
    if not edits:
        raise UserError(f"{scene}: none of its true edits removes an object.")
    rows = [row(edit, scene, run, document, options.inpainters, options.edge) for edit in edits]
    sheet = grid([panel for panels in rows for panel in panels], len(rows[0]))
    save_jpeg(options.out, sheet)


if __name__ == "__main__":
    run_command(main)
