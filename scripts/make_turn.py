"""Draws the README's animated picture: every view of a run in the order of names, photograph | render | ids.

    python render.py -m RUN
    python scripts/make_turn.py -m RUN --out docs/images/turn.webp

Names in the order of the camera's path make it turn. Training and test views alike are shown; the test views,
which the run never saw, carry a white bar along their lower edge.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from scene.run_folder import SPLITS, RunFolder
from utils.errors import UserError, run_command
from utils.files import atomic_write
from utils.json_files import read_json

PANELS = ("gt", "renders", "objects_pred")
BAR = 3  # pixels of the enlarged picture


def views(run: Path) -> list[tuple[str, Path, str]]:
    """(split, folder of pictures, file name) of every view of the run, in the order of the views' names."""
    of_run = RunFolder(run)
    names = [view["img_name"] for view in read_json(of_run.cameras)]
    folders = {split: of_run.renders(split, of_run.latest_saved()) for split in SPLITS}
    counts = {split: len(list((folder / "renders").glob("*.png"))) for split, folder in folders.items()}
    if sum(counts.values()) != len(names):
        raise UserError(f"{run}: {len(names)} views, but pictures of {counts}. Run render.py -m {run}.")
    tests = set(names[: counts["test"]])  # cameras.json has them first
    numbers = dict.fromkeys(counts, 0)  # pictures are numbered in the order of names
    found = []
    for name in sorted(names):
        split = "test" if name in tests else "train"
        found.append((split, folders[split], f"{numbers[split]:05d}.png"))
        numbers[split] += 1
    return found


def frame(split: str, folder: Path, file: str, height: int) -> Image.Image:
    """One view: the panels side by side, enlarged; ids without interpolation."""
    panels = []
    for panel in PANELS:
        picture = Image.open(folder / panel / file).convert("RGB")
        size = round(picture.width * height / picture.height), height
        sampling = Image.Resampling.NEAREST if panel == "objects_pred" else Image.Resampling.LANCZOS
        panels.append(np.asarray(picture.resize(size, sampling)))
    row = np.concatenate(panels, axis=1)
    if split == "test":
        row[-BAR:] = 255
    return Image.fromarray(row)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes an animated WebP."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-m", "--model_path", type=Path, required=True, help="run, after render.py")
    parser.add_argument("--out", type=Path, required=True, help=".webp file")
    parser.add_argument("--height", type=int, default=240, help="of a panel, in pixels (default: 240)")
    parser.add_argument("--milliseconds", type=int, default=150, help="each view is shown (default: 150)")
    parser.add_argument("--quality", type=int, default=80, help="of the compression, 0 to 100 (default: 80)")
    options = parser.parse_args(argv)
    first, *rest = [frame(*view, options.height) for view in views(options.model_path)]
    with atomic_write(options.out) as temporary:
        first.save(
            temporary,
            "WEBP",
            save_all=True,
            append_images=rest,
            duration=options.milliseconds,
            loop=0,
            quality=options.quality,
            method=6,
        )
    print(f"{options.out}: {len(rest) + 1} frames, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run_command(main)
