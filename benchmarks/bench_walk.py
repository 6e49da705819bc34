"""Objects found by clicks without a network, by the random walk over a splat: IoU of their test masks.

    python benchmarks/bench_walk.py --ply scene.ply --scene SCENE -r 2 --json walk.json \
        --objects "red apple,yellow duck,red mug,blue book,ketchup bottle"

A simulated user looks at every fifth training view and clicks, deepest inside, into the largest part of
object_mask_exact/ that is missing, or of what is too much. Masks are where the Gaussians that were found make
up half of a pixel.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor

from arguments import ModelParams
from benchmarks.machine import environment
from gradiseg.evaluation.ids import read_ids
from gradiseg.evaluation.lerf_mask import EXACT_FOLDER
from gradiseg.evaluation.masks import read_mask
from gradiseg.evaluation.metrics import mask_iou
from gradiseg.finished.clicks import shows
from gradiseg.finished.splat import load_splat
from gradiseg.finished.walk import Click, middle, walk
from scene import Scene
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.masks import resize_id_map
from utils.errors import run_command
from utils.json_files import write_json

CLICKS = 5
EVERY = 5  # training view is looked at


def correction(views: Sequence[Camera], masks: Sequence[np.ndarray], id: int) -> Click | None:
    """Into the largest part that the masks (H, W) of the views lack or have too much; None for none."""
    best, most = None, 0
    for camera, mask in zip(views, masks, strict=True):
        assert camera.objects is not None  # an exact mask
        truth = camera.objects.numpy() == id
        for wrong, is_on in ((truth & ~mask, True), (mask & ~truth, False)):
            parts, _ = label(wrong)
            pixels = np.bincount(parts.ravel())[1:]
            if len(pixels) and pixels.max() > most:
                most = pixels.max()
                depth = distance_transform_edt(np.pad(parts == pixels.argmax() + 1, 1))[1:-1, 1:-1]
                row, column = np.unravel_index(depth.argmax(), depth.shape)
                best = Click(camera, float(column) + 0.5, float(row) + 0.5, is_on)
    return best


def found_by_clicks(model: GaussianModel, scene: Scene, folder: Path, name: str, id: int) -> dict[str, Any]:
    """Of one object, mean IoU of its test masks after each click, and what the last walk took."""
    views, above = scene.getTrainCameras()[::EVERY], middle(scene.getTrainCameras())
    chosen = torch.zeros(model.num_gaussians, dtype=torch.bool)
    clicks, scores, seconds = list[Click](), list[float](), 0.0
    for _ in range(CLICKS):
        click = correction(views, [shows(model, chosen, view) for view in views], id)
        if click is not None:
            clicks.append(click)
            start = time.process_time()
            chosen = walk(model, clicks, above)
            seconds = time.process_time() - start
        scores.append(score(model, chosen, scene.getTestCameras(), folder, name))
    return {"iou": scores, "is_on": [click.is_on for click in clicks], "cpu_seconds_of_walk": seconds}


def score(model: GaussianModel, chosen: Tensor, cameras: Sequence[Camera], folder: Path, name: str) -> float:
    """Mean IoU over the test views that have a mask of the object."""
    values = []
    for number, camera in enumerate(cameras):
        path = folder / "test_mask" / str(number) / f"{name}.png"
        if path.is_file():
            truth = resize_id_map(read_mask(path).astype(np.uint8), camera.image_width, camera.image_height)
            values.append(mask_iou(shows(model, chosen, camera), truth == 1))
    return float(np.mean(values))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description="Objects found by clicks without a network.")
    parser.add_argument("--ply", required=True, help="splat of the scene")
    parser.add_argument("--scene", type=Path, required=True, help="scene with exact masks and test masks")
    parser.add_argument("--objects", required=True, help="prompts, with commas between")
    parser.add_argument("-r", "--resolution", type=int, default=-1, help="as of train.py")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(argv)
    command = f"--ply {Path(args.ply).name} --scene {args.scene.name} -r {args.resolution}"
    command = f'python benchmarks/bench_walk.py {command} --objects "{args.objects}"'
    record: dict[str, Any] = {"command": command, **environment(), "objects": {}}
    params = ModelParams(
        str(args.scene), train_split=True, object_path=EXACT_FOLDER, resolution=args.resolution
    )
    scene = Scene(params, None)
    model, ids = load_splat(args.ply, "cpu", scene.info.origin), read_ids(args.scene / "prompts.json")
    for name in args.objects.split(","):
        record["objects"][name] = found_by_clicks(model, scene, args.scene, name, ids[name][0])
        print(name, record["objects"][name], flush=True)
    record["mean_iou"] = np.mean([found["iou"] for found in record["objects"].values()], 0).tolist()
    print("mean", record["mean_iou"])
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    run_command(main)
