"""Outlines of masks that `gradiseg.repair.outlines` finds in the photographs, against the true ones.

    python benchmarks/bench_outlines.py --scene SCENE -r 1 2 4 --json benchmarks/results/outlines_SCENE.json

For every size, once for the noisy masks in `object_mask/`, once for the true ones in `object_mask_exact/`,
which should stay:

- `objects`: for every prompt, IoU of its training masks with the true ones (pixels pooled over the views)
  and what the correction adds to it; `worst` is the smallest of these, `mean` their mean.
- `pairs`: for every pair of neighbouring labels the `points` of their outlines, the offset between masks and
  photographs that is applied, and the true one, measured the same way in pictures that show each true id in a
  colour of its own. `rms_before` and `rms_after` are the root mean squares of the true offset, and of what
  the applied one leaves, over the pairs, weighted by the square root of their points. Pixels are those of the
  size at which outlines are measured.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip
import numpy as np
import torch
from torch import Tensor

from arguments import ModelParams
from benchmarks.machine import environment
from gradiseg.classifier import IdentityClassifier
from gradiseg.evaluation.ids import Assignment, Overlap, read_ids
from gradiseg.repair.labels import TrainingLabels
from gradiseg.repair.outlines import OutlineProfiles
from scene.cameras import Camera, load_camera
from scene.dataset_readers import read_scene
from scene.masks import read_id_map, resize_id_map
from utils.errors import run_command
from utils.json_files import write_json

KINDS = ("object_mask", "object_mask_exact")


def measure(scene: Path, kind: str, resolution: int) -> dict[str, Any]:
    """One kind of masks of a scene's training views at one size."""
    params = ModelParams(str(scene), resolution=resolution, object_path=kind, train_split=True)
    views = [load_camera(info, uid, params) for uid, info in enumerate(read_scene(params).train_cameras)]
    classifier = IdentityClassifier(range(params.num_classes), params.num_classes)
    labels = TrainingLabels(classifier)
    before = [labels(view) for view in views]
    start = time.perf_counter()
    profiles = labels.correct_outlines(views)
    seconds = time.perf_counter() - start
    true_ids = [true_ids_of(scene, view) for view in views]
    after = [labels(view) for view in views]
    return {
        "masks": kind,
        "size": [views[0].image_width, views[0].image_height],
        "views": len(views),
        "milliseconds_per_view": round(1000 * seconds / len(views), 1),
        **compare_objects(read_ids(scene / "prompts.json"), true_ids, before, after),
        **compare_pairs(profiles, true_ids, before),
    }


def true_ids_of(scene: Path, view: Camera) -> np.ndarray:
    """Id map (H, W) of `object_mask_exact` at the view's size."""
    ids = read_id_map(scene / "object_mask_exact" / f"{view.image_name}.png")
    return resize_id_map(ids, view.image_width, view.image_height)


def compare_objects(
    prompts: Assignment, true_ids: list[np.ndarray], before: list[Tensor], after: list[Tensor]
) -> dict[str, Any]:
    """IoU of every prompt's best label with its true ids before the correction, and what that adds."""
    rows = {}
    for prompt, wanted in prompts.items():
        overlaps = Overlap(), Overlap()
        for overlap, labels in zip(overlaps, (before, after), strict=True):
            for ids, own in zip(true_ids, labels, strict=True):
                overlap.add(own.numpy(), np.isin(ids, wanted))
        label = overlaps[0].best()
        if label is not None:
            iou = overlaps[0].iou(label)
            rows[prompt] = [round(iou, 4), round(overlaps[1].iou(label) - iou, 4)]
    added = [added for _, added in rows.values()]
    return {"mean": round(float(np.mean(added)), 4), "worst": min(added), "objects": rows}


def compare_pairs(found: OutlineProfiles, true_ids: list[np.ndarray], labels: list[Tensor]) -> dict[str, Any]:
    """Applied and true offsets of every pair of labels."""
    colors = torch.rand(found.count, 3, generator=torch.Generator().manual_seed(0))
    true = OutlineProfiles(found.count)
    for ids, own in zip(true_ids, labels, strict=True):
        true.add_view(own, colors[torch.from_numpy(ids).long()].permute(2, 0, 1))
    applied, truth = found.offsets().numpy(), true.edges()
    points = found.profiles.sum(0).reshape(truth.shape)
    first, second = np.nonzero(np.isfinite(truth) & (points > 0))
    weights = np.sqrt(points[first, second])

    def rms(offsets: np.ndarray) -> float:
        return round(float(np.sqrt(np.average(offsets**2, weights=weights))), 3) if len(offsets) else 0.0

    return {
        "rms_before": rms(truth[first, second]),
        "rms_after": rms(truth[first, second] - applied[first, second]),
        "pairs": {  # ids: points, applied offset, true offset
            f"{a} {b}": f"{int(points[a, b])} {applied[a, b]:+.2f} {truth[a, b]:+.2f}"
            for a, b in zip(first, second, strict=True)
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both kinds of masks at all sizes; print the summary, write all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", type=Path, required=True, help="scene with object_mask_exact/")
    parser.add_argument("-r", "--resolution", type=int, nargs="+", default=[1, 2, 4], help="as train.py's")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(argv)
    record: dict[str, Any] = {
        "command": f"python benchmarks/bench_outlines.py --scene {args.scene.name} -r "
        + " ".join(map(str, args.resolution)),
        **environment(),
    }
    for resolution in args.resolution:
        for kind in KINDS:
            result = measure(args.scene, kind, resolution)
            record[f"{result['masks']} -r {resolution}"] = result
            shown = {key: value for key, value in result.items() if key not in ("pairs", "objects")}
            print(json.dumps(shown), flush=True)
            worst = sorted(result["objects"].items(), key=lambda row: row[1][1])[:3]
            print("   ", ", ".join(f"{prompt} {iou:.3f} {added:+.4f}" for prompt, (iou, added) in worst))
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    run_command(main)
