"""One click on each of some objects, carried through a scene's views by its splat: masks, then identities.

    python benchmarks/bench_clicks.py --ply scene.ply --scene SCENE -r 2 --json clicks.json \
        --objects "red apple,yellow duck,red mug,blue book,ketchup bottle"

The oracle stands in for a network: it gives the whole mask of what lies under the first point, from
object_mask_exact/, then from object_mask/, whose masks err. So this measures what is ours, the way of the
prompts through the splat and the votes of the masks, and not a network. Objects are clicked in the view that
shows most of what the oracle rightly has of them, deepest inside. Of all masks of objects in training views:
`right`, with an IoU above 0.5 of what object_mask_exact/ has, `wrong`, and `missing`, where it has 20 pixels
or more. Then segment_splat.py, scored on the test masks of the clicked objects. Last the same clicks as with
object_mask_exact/ without any oracle, by the random walk (`--segmenter walk`).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

import numpy as np
from scipy.ndimage import distance_transform_edt

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, parse_with_run
from benchmarks.machine import environment
from gradiseg.evaluation.ids import read_ids
from gradiseg.evaluation.lerf_mask import EXACT_FOLDER, evaluate_run
from gradiseg.evaluation.metrics import mask_iou
from gradiseg.finished.clicks import cut_out
from gradiseg.trained import load_run
from preparation.masks import WALK
from scene.dataset_readers import read_scene
from scene.masks import read_id_map, resize_id_map, write_id_map
from scene.views import CameraInfo
from segment_splat import main as segment_splat
from utils.errors import run_command
from utils.image import image_size, read_pixels
from utils.json_files import write_json

FEWEST = 20  # pixels of an object that shows in a view
MASKS = "object_mask"


@dataclass
class Oracle:
    """Known masks by what their photographs look like, as a segmenter of clicks."""

    views: Sequence[CameraInfo]
    masks: dict[str, np.ndarray]  # view -> id map (H, W) of its photograph's size
    calls: int = 0

    def __post_init__(self) -> None:
        self.ids = {
            read_pixels(view.image_path).tobytes(): self.masks[view.image_name] for view in self.views
        }

    def __call__(self, image: np.ndarray, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """All of what has the id at the first point; nothing where that has none."""
        self.calls += 1
        ids = self.ids[image.tobytes()]
        column, row = points[labels][0].astype(int)
        mask: np.ndarray = (ids == ids[row, column]) & (ids > 0)
        return mask


def maps_of(folder: Path, views: Sequence[CameraInfo]) -> dict[str, np.ndarray]:
    """View name -> id map of a folder of masks, as large as the photograph."""
    return {
        view.image_name: resize_id_map(
            read_id_map(folder / f"{view.image_name}.png"), *image_size(view.image_path)
        )
        for view in views
    }


def click(shows: dict[str, np.ndarray]) -> dict[str, list[list[float]]]:
    """A point deepest inside an object, in the view that shows most of it, of its masks (H, W) in all."""
    view = max(shows, key=lambda name: int(shows[name].sum()))
    row, column = np.unravel_index(distance_transform_edt(shows[view]).argmax(), shows[view].shape)
    return {view: [[float(column) + 0.5, float(row) + 0.5]]}


def judged(maps: dict[str, np.ndarray], exact: dict[str, np.ndarray], ids: Sequence[int]) -> dict[str, float]:
    """Shares of the objects' masks that are right, missing, wrong; object k has the id k + 1 in `maps`."""
    counts = {"right": 0, "missing": 0, "wrong": 0}
    for name, truth in exact.items():
        for number, id in enumerate(ids, 1):
            found = maps[name] == number if name in maps else np.zeros_like(truth, bool)
            if found.any():
                counts["right" if mask_iou(found, truth == id) > 0.5 else "wrong"] += 1
            elif (truth == id).sum() >= FEWEST:
                counts["missing"] += 1
    total = sum(counts.values())
    return {"masks": total} | {name: count / total for name, count in counts.items()}


def scored(ply: str, scene: Path, masks: Path, resolution: str, names: Sequence[str]) -> dict[str, Any]:
    """Segmented by the masks in a folder: scores of the objects' test masks, and their means."""
    with tempfile.TemporaryDirectory() as folder:
        linked, run_folder = Path(folder, "scene"), str(Path(folder, "run"))
        linked.mkdir()
        for path in scene.iterdir():
            (linked / path.name).symlink_to(masks if path.name == MASKS else path.resolve())
        flags = ["-m", run_folder, "-r", resolution, "--train_split", "--quiet"]
        segment_splat(["--ply", ply, "-s", str(linked), *flags])
        model, device = parse_with_run(
            (ModelParams, DeviceParams), ["-m", run_folder], without=OF_SAVED_MODEL
        )
        record = evaluate_run(load_run(model, device), linked, MASKS)
    rows = {name: record["per_prompt"][name] for name in names}
    keys = ("iou", "biou", "biou_strict")
    return {"objects": rows} | {key: float(np.mean([row[key] for row in rows.values()])) for key in keys}


def measure(ply: str, scene: Path, source: str, resolution: str, names: Sequence[str]) -> dict[str, Any]:
    """The record of one source of masks: the folder of an oracle's, or `WALK`."""
    info = read_scene(ModelParams(str(scene), train_split=True))
    views = sorted(info.train_cameras, key=lambda view: view.image_name)
    prompts = read_ids(scene / "prompts.json")
    ids = [prompts[name][0] for name in names]
    exact = maps_of(scene / EXACT_FOLDER, views)
    shown = exact if source == WALK else maps_of(scene / source, views)
    oracle = None if source == WALK else Oracle(views, shown)
    table = {
        name: click({view: (exact[view] == id) & (shown[view] == id) for view in exact})
        for name, id in zip(names, ids, strict=True)
    }
    with tempfile.TemporaryDirectory() as folder:
        clicks, masks = Path(folder, "clicks.json"), Path(folder, "masks")
        write_json(clicks, table)
        start = time.process_time()
        maps, _ = cut_out(ply, "cpu", str(clicks), info, views, oracle)
        seconds = time.process_time() - start
        for name, found in maps.items():
            write_id_map(masks / f"{name}.png", found)
        calls = oracle.calls if oracle else 0
        counted = {"clicks": table, "calls": calls, "views": len(views), "views_with_mask": len(maps)}
        found_masks = judged(maps, exact, ids) | {"cpu_seconds": seconds}
        return counted | found_masks | scored(ply, scene, masks, resolution, names)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures with exact masks, with those that err, and without a network."""
    parser = argparse.ArgumentParser(description="One click on each of some objects, carried by a splat.")
    parser.add_argument("--ply", required=True, help="splat without identities")
    parser.add_argument(
        "--scene", type=Path, required=True, help="its scene, with exact masks and test masks"
    )
    parser.add_argument("--objects", required=True, help="prompts, with commas between")
    parser.add_argument("-r", "--resolution", default="-1", help="as of train.py")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(argv)
    names = args.objects.split(",")
    record: dict[str, Any] = {
        "command": f"python benchmarks/bench_clicks.py --ply {Path(args.ply).name} --scene {args.scene.name} "
        f'-r {args.resolution} --objects "{args.objects}"',
        **environment(),
    }
    for source in (EXACT_FOLDER, MASKS, WALK):
        record[source] = measure(args.ply, args.scene, source, args.resolution, names)
        print(source, json.dumps(record[source]), flush=True)
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    run_command(main)
