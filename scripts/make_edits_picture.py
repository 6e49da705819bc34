"""Draws the paper's figures 7 and 10 on a run: a test view after each recipe, side by side.

python scripts/make_edits_picture.py -m RUN --recipes config/edit/*.json --out docs/images/edits.jpg

With several runs of one scene, what each makes of the recipes, one run after the other.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

from arguments import DeviceParams, ModelParams, parse_with_run
from gradiseg.editing.baking import picture
from gradiseg.editing.document import Document, read_recipe
from gradiseg.editing.files import open_run
from gradiseg.trained import load_run
from scene.cameras import Camera
from utils.errors import UserError, run_command
from utils.sheet import captioned, grid, save_jpeg


def panel(document: Document, views: Sequence[Camera], caption: str, height: int) -> Image.Image:
    """Views of the document as it is, one below the other, under a caption."""
    rows = []
    for view in views:
        pixels = Image.fromarray(picture(document.model, view).permute(1, 2, 0).cpu().numpy())
        rows.append(np.asarray(pixels.resize((round(pixels.width * height / pixels.height), height))))
    return captioned(Image.fromarray(np.concatenate(rows)), caption)


def panels_of(path: str, recipes: Sequence[Path], numbers: Sequence[int], height: int) -> list[Image.Image]:
    """A run as it is and after each recipe, in its test views of these numbers."""
    run = load_run(*parse_with_run((ModelParams, DeviceParams), ["-m", path]))
    if max(numbers) >= len(run.test_cameras):
        raise UserError(f"--views: {path} has {len(run.test_cameras)} test views, numbered from 0.")
    views = [run.test_cameras[number] for number in numbers]
    panels = [panel(open_run(run), views, Path(path).name, height)]
    for recipe in recipes:
        document = open_run(run)
        for operation in read_recipe(recipe):
            document.apply(operation)
        panels.append(panel(document, views, recipe.stem, height))
    return panels


def main(argv: Sequence[str] | None = None) -> None:
    """Writes one picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-m", "--model_path", nargs="+", required=True, help="run, or several of one scene")
    parser.add_argument(
        "--recipes", nargs="+", type=Path, required=True, help="JSON files, see docs/editing.md"
    )
    parser.add_argument("--views", nargs="+", type=int, default=[0, 4], help="numbers of test views")
    parser.add_argument("--columns", type=int, default=5, help="recipes side by side (default: 5)")
    parser.add_argument("--height", type=int, default=180, help="of a view, in pixels (default: 180)")
    parser.add_argument("--out", type=Path, required=True, help="JPEG file")
    options = parser.parse_args(argv)
    panels = [
        made
        for path in options.model_path
        for made in panels_of(path, options.recipes, options.views, options.height)
    ]
    sheet = grid(panels, max(1, options.columns))
    save_jpeg(options.out, sheet)


if __name__ == "__main__":
    run_command(main)
