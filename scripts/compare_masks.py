"""Crops of the test views that show where the masks of several runs differ from the true ones.

    python scripts/compare_masks.py -s SCENE --runs output/baseline output/gradiseg --out crops.png

A row is one object in one test view: the photograph with its true outline, then for every run the mask that
scripts/eval_lerf_mask.py wrote: green where it is right, red where it is too much, blue where it is missing.
The rows are those in which the runs' numbers of wrong pixels differ most, one for each prompt.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradiseg.evaluation.diagnosis import boundary_distance
from gradiseg.evaluation.masks import TruthMask, list_truth, read_mask
from gradiseg.evaluation.metrics import BoolArray
from scene.run_folder import RunFolder
from utils.errors import UserError, run_command
from utils.image import read_pixels, write_png

MARGIN = 0.25  # of an object's size, shown around it
CELL = 240  # height and width of a panel, pixels
RIGHT, EXTRA, MISSED = (60, 200, 60), (230, 40, 40), (50, 90, 255)


def predicted(run: Path, mask: TruthMask) -> BoolArray:
    """The mask (H, W) of a run; empty where it has none, as it is scored."""
    folder = RunFolder(run).text_masks("test", RunFolder(run).latest_saved())
    if not folder.is_dir():
        raise UserError(f"{folder}: no masks there. Run scripts/eval_lerf_mask.py -m {run} first.")
    path = folder / str(mask.view) / f"{mask.prompt}.png"
    return read_mask(path) if path.is_file() else np.zeros_like(read_mask(mask.path))


def most_different(truth: Sequence[TruthMask], runs: Sequence[Path], rows: int) -> list[TruthMask]:
    """Of every prompt the view in which the numbers of wrong pixels spread most; of those the widest.

    Raises: UserError where no view shows anything.
    """
    spread: dict[str, tuple[int, int]] = {}
    for index, mask in enumerate(truth):
        true = read_mask(mask.path)
        if not true.any():
            continue  # an object that the view does not show has no place to crop
        wrong = [int((predicted(run, mask) != true).sum()) for run in runs]
        spread[mask.prompt] = max(spread.get(mask.prompt, (-1, 0)), (max(wrong) - min(wrong), index))
    if not spread:
        raise UserError("test_mask: every true mask there is empty, so there is nothing to show.")
    return [truth[index] for _, index in sorted(spread.values(), reverse=True)[:rows]]


def crop_of(mask: BoolArray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a square around a mask, inside the picture."""
    places = np.argwhere(mask)  # (P, 2) row, column
    extent = max(int(np.ptp(places, axis=0).max()), 8)
    size = min(round(extent * (1 + 2 * MARGIN)), *mask.shape)
    top, left = np.clip(places.mean(0).astype(int) - size // 2, 0, np.array(mask.shape) - size).tolist()
    return left, top, left + size, top + size


def panels(photograph: Image.Image, true: BoolArray, masks: Sequence[BoolArray]) -> list[Image.Image]:
    """The photograph with the true outline, and the photograph dimmed under each mask's errors."""
    pixels = np.asarray(photograph.convert("RGB"))
    outlined = pixels.copy()
    outlined[true & (boundary_distance(true.astype(np.int64)) == 0)] = 255
    pictures = [outlined]
    for mask in masks:
        painted = 0.4 * pixels
        for where, color in ((true & mask, RIGHT), (mask & ~true, EXTRA), (true & ~mask, MISSED)):
            painted[where] = 0.4 * painted[where] + 0.6 * np.array(color)
        pictures.append(painted.astype(np.uint8))
    return [_square(picture, crop_of(true)) for picture in pictures]


def _square(pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> Image.Image:
    return Image.fromarray(pixels).crop(box).resize((CELL, CELL), Image.Resampling.NEAREST)


def photograph_of(run: Path, view: int, size: tuple[int, int]) -> Image.Image:
    """The photograph of a test view as render.py kept it beside the run's pictures, at a mask's size."""
    path = RunFolder(run).renders("test", RunFolder(run).latest_saved()) / "gt" / f"{view:05d}.png"
    if not path.is_file():
        raise UserError(f"{path}: not there. Run render.py -m {run} first.")
    return Image.fromarray(read_pixels(path)).resize(size)


def main(argv: Sequence[str] | None = None) -> None:
    """Choose the rows, draw them below each other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-s", "--scene", type=Path, required=True, help="scene with test_mask/")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of scored runs")
    parser.add_argument("--out", type=Path, default=Path("crops.png"))
    parser.add_argument("--rows", type=int, default=4)
    args = parser.parse_args(argv)
    chosen = most_different(list_truth(args.scene / "test_mask"), args.runs, args.rows)
    sheet = Image.new("RGB", (CELL * (1 + len(args.runs)), CELL * len(chosen)))
    for row, mask in enumerate(chosen):
        true = read_mask(mask.path)
        photograph = photograph_of(args.runs[0], mask.view, (true.shape[1], true.shape[0]))
        masks = [predicted(run, mask) for run in args.runs]
        for column, panel in enumerate(panels(photograph, true, masks)):
            sheet.paste(panel, (CELL * column, CELL * row))
        print(f"row {row + 1}: {mask.prompt}, test view {mask.view}")
    write_png(args.out, sheet)


if __name__ == "__main__":
    run_command(main)
