"""Objects from clicks, scored: `prepare_masks.py --backend clicks` against the test masks of a scene.

    python benchmarks/bench_clicks.py --ply scene.ply --scene SCENE --objects "mug,lemon" --json FILE

Each object is clicked once, in the training view that shows most of it, at the pixel deepest inside its
exact mask. With `--clicks N` a user corrects the mask of that view: N - 1 further clicks, each into the
middle of the largest part that is missing (positive) or too much (negative). Scores are the IoU of the mask in the
clicked view and the mean IoU over the test views, `test_mask/<k>/<prompt>.png`.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

import numpy as np
from scipy import ndimage

from arguments import ModelParams
from benchmarks.machine import environment
from gradiseg.evaluation.masks import read_mask
from gradiseg.finished.clicks import Click, View, first_mask, grabcut, masks_of_clicks, seen
from gradiseg.finished.splat import load_splat, reduced
from scene.dataset_readers import read_scene
from scene.masks import read_id_map, resize_id_map
from utils.errors import run_command
from utils.json_files import write_json


def iou(one: np.ndarray, two: np.ndarray) -> float:
    """IoU of two masks (H, W)."""
    return float((one & two).sum() / max(1, (one | two).sum()))


def deepest(region: np.ndarray) -> tuple[float, float]:
    """The (x, y) of a pixel farthest from what is not `region` (H, W)."""
    inside = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside.argmax()), region.shape)
    return float(column) + 0.5, float(row) + 0.5


def click(view: View, name: str, true: np.ndarray, count: int) -> tuple[list[Click], float]:
    """The clicks of a user on the object `true` (H, W) in a view, and the IoU of the mask there."""
    clicks = [Click(view.camera.image_name, *deepest(true), name)]
    mask = first_mask(view, clicks, grabcut())
    while len(clicks) < count and (mask != true).any():
        missing, wrong = true & ~mask, mask & ~true
        positive = bool(missing.sum() >= wrong.sum())
        spot = deepest(missing if positive else wrong)
        clicks.append(Click(view.camera.image_name, *spot, name, positive))
        mask = first_mask(view, clicks, grabcut())
    return clicks, iou(mask, true)


def measure(ply: str, scene: Path, objects: Sequence[str], count: int) -> dict[str, Any]:
    """Scores of every object, by name, and what it took."""
    info = read_scene(ModelParams(str(scene), train_split=True, eval=True))
    model = load_splat(ply, "cpu", info.origin)
    cameras = {v.image_name: reduced(v, "cpu") for v in (*info.train_cameras, *info.test_cameras)}
    training = [view.image_name for view in info.train_cameras]
    ids = json.loads((scene / "prompts.json").read_text(encoding="utf-8"))["prompts"]
    exact = {name: read_id_map(scene / "object_mask_exact" / f"{name}.png") for name in training}
    start, given, first = time.process_time(), list[Click](), {}
    for name in objects:
        most = max(training, key=lambda view: int((exact[view] == ids[name]).sum()))
        camera = cameras[most]
        small = resize_id_map(exact[most], camera.image_width, camera.image_height)
        clicks, first[name] = click(seen(model, camera), name, small == ids[name], count)
        given += clicks
    found = masks_of_clicks(model, list(cameras.values()), given, grabcut())
    seconds = time.process_time() - start
    tests = [view.image_name for view in info.test_cameras]
    scores = {
        name: {"clicked_view": first[name], "test_views": score(found, tests, scene, name, number)}
        for number, name in enumerate(objects, 1)
    }
    return {"clicks": len(given), "objects": scores, "cpu_seconds": seconds}


def score(
    found: Mapping[str, np.ndarray], tests: Sequence[str], scene: Path, prompt: str, number: int
) -> float:
    """Mean IoU of an object over the test views that have a mask of it."""
    values = []
    for k, view in enumerate(tests):
        path = scene / "test_mask" / str(k) / f"{prompt}.png"
        if path.is_file():
            true = read_mask(path)
            ids = resize_id_map(found[view], true.shape[1], true.shape[0])
            values.append(iou(ids == number, true))
    return float(np.mean(values))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description="Objects from clicks, scored.")
    parser.add_argument("--ply", required=True, help="splat of the scene")
    parser.add_argument("--scene", type=Path, required=True, help="scene with object_mask_exact/, test_mask/")
    parser.add_argument("--objects", required=True, help="names in its prompts.json, separated by commas")
    parser.add_argument("--clicks", type=int, nargs="+", default=[1, 3], help="clicks on each object")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(argv)
    flags = f"--scene {args.scene.name} --ply {Path(args.ply).name} --objects {args.objects!r}"
    record: dict[str, Any] = {"command": f"python benchmarks/bench_clicks.py {flags}", **environment()}
    for count in args.clicks:
        record[f"{count} clicks"] = measure(args.ply, args.scene, args.objects.split(","), count)
        print(count, json.dumps(record[f"{count} clicks"]), flush=True)
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    run_command(main)
