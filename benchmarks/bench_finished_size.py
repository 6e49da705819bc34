"""segment_splat.py on a splat of a million Gaussians with hundreds of labels: peak of memory and seconds.

    python benchmarks/bench_finished_size.py --ply output/colour/exports/scene.ply --scene SCENE \
        --gaussians 1000000 --labels 300 --json benchmarks/results/finished_1m.json

Every Gaussian of the splat is there many times, scattered within its own extent and smaller. Photographs are
the scene's at 640 x 480 or so, masks a grid of `--labels` fields in every view. No scene asks for more: every
view has all labels, and each touches its neighbours. Poses are given by `--cameras`, points there are none.
`votes` is with `--no_refine`, `refined` with `--rounds` of `--steps`, each in a process of its own; memory
does not depend on how many there are.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arguments import ModelParams
from benchmarks.machine import alone, environment
from scene.dataset_readers import read_scene
from scene.formats.files import read_gaussians
from scene.gaussian_ops import select
from scene.masks import write_id_map
from scene.ply import export_3dgs_ply
from scene.views import CameraInfo
from segment_splat import main as segment_splat
from utils.errors import run_command
from utils.graphics import build_rotation
from utils.json_files import write_json
from utils.memory import peak_memory_mb

WIDTH = 640  # pixels of a view


def densified(params: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """`count` Gaussians in the place of N: copies, scattered and shrunk so that they fill the same space."""
    generator = torch.Generator().manual_seed(0)
    of = torch.arange(count) % len(params["xyz"])
    copies = select(params, of)
    spread = copies["scaling"].exp() * torch.randn(count, 3, generator=generator) / 2
    turns = build_rotation(copies["rotation"])  # (count, 3, 3)
    copies["xyz"] = copies["xyz"] + (turns @ spread[:, :, None])[:, :, 0]
    copies["scaling"] = copies["scaling"] - math.log(count / len(params["xyz"])) / 3
    return copies


def write_views(folder: Path, views: Sequence[CameraInfo], labels: int) -> None:
    """Photographs, masks and `cameras.json` of a scene in `folder`."""
    entries = []
    for number, view in enumerate(views):
        width, height = WIDTH, round(view.height * WIDTH / view.width)
        x, y = width / view.width, height / view.height
        name = f"{number:05d}.png"
        for sub in ("images", "object_mask"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        with Image.open(view.image_path) as picture:
            picture.convert("RGB").resize((width, height)).save(folder / "images" / name)
        write_id_map(folder / "object_mask" / name, fields(height, width, labels))
        pose = {"position": (-view.R @ view.T).tolist(), "rotation": view.R.tolist()}
        lens = {"fx": view.fx * x, "fy": view.fy * y, "cx": view.cx * x, "cy": view.cy * y}
        entries.append({"img_name": name, "width": width, "height": height} | pose | lens)
    write_json(folder / "cameras.json", entries)


def fields(height: int, width: int, labels: int) -> np.ndarray:
    """A grid of the ids 1 to `labels`: (height, width)."""
    columns = math.ceil(math.sqrt(labels * width / height))
    rows = math.ceil(labels / columns)
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    return 1 + np.minimum(row[:, None] * columns + column, labels - 1)


def measured(ply: str, scene: str, flags: Sequence[str]) -> dict[str, Any]:
    """The record of segment_splat.py with some flags, the seconds and the peak of memory of the process."""
    cameras = str(Path(scene, "cameras.json"))
    with tempfile.TemporaryDirectory() as run:
        start = time.process_time()
        segment_splat(["--ply", ply, "-s", scene, "-m", run, "--cameras", cameras, "--quiet", *flags])
        record = json.loads(Path(run, "segmented.json").read_text(encoding="utf-8"))
    took = {"cpu_seconds": round(time.process_time() - start, 1), "peak_mb": round(peak_memory_mb(), 1)}
    return record | took


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ply", required=True, help="a splat of the scene")
    parser.add_argument("--scene", required=True)
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1, help="of refinement")
    parser.add_argument("--steps", type=int, default=24, help="of a round")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(argv)
    sizes = {name: getattr(args, name) for name in ("gaussians", "labels", "views")}
    record: dict[str, Any] = {**sizes, **environment()}
    with tempfile.TemporaryDirectory() as folder:
        views = read_scene(ModelParams(args.scene)).train_cameras
        write_views(Path(folder), views[:: max(1, len(views) // args.views)][: args.views], args.labels)
        ply = str(Path(folder, "splat.ply"))
        export_3dgs_ply(ply, densified(read_gaussians(args.ply), args.gaussians))
        common = ["--num_classes", str(args.labels + 1)]
        refine = ["--rounds", str(args.rounds), "--steps", str(args.steps)]
        for name, flags in (("votes", ["--no_refine"]), ("refined", refine)):
            record[name] = alone(measured, ply, folder, [*common, *flags])
            print(name, json.dumps(record[name]))
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    run_command(main)
