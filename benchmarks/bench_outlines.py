"""Outlines of masks that `gradiseg.repair.outlines` finds in the photographs, against the true ones.

    python benchmarks/bench_outlines.py --scene SCENE --json benchmarks/results/outlines_SCENE.json

For every pair of neighbouring labels: `points` of their outlines, the offset between masks and photographs
that is applied, and the true one, measured the same way in pictures that show each true id in a colour of its
own.
`rms_before` and `rms_after` are the root mean squares of the true offset, and of what the applied one leaves,
over the pairs, weighted by the square root of their points. Once for the noisy masks in `object_mask/`, once
for the true ones in `object_mask_exact/`, which should stay. Offsets are in pixels of the size at which
outlines are measured.
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

from arguments import ModelParams
from benchmarks.machine import environment
from gradiseg.repair.outlines import OutlineProfiles
from scene.cameras import load_camera
from scene.dataset_readers import read_scene
from scene.masks import read_id_map, resize_id_map
from utils.errors import run_command
from utils.json_files import write_json

KINDS = ("object_mask", "object_mask_exact")


def measure(scene: Path, kind: str, resolution: int) -> dict[str, Any]:
    """The offsets of one kind of masks of a scene's training views."""
    params = ModelParams(str(scene), resolution=resolution, object_path=kind, train_split=True)
    views = [load_camera(info, uid, params) for uid, info in enumerate(read_scene(params).train_cameras)]
    colors = torch.rand(params.num_classes, 3, generator=torch.Generator().manual_seed(0))
    found, true = OutlineProfiles(params.num_classes), OutlineProfiles(params.num_classes)
    seconds = 0.0
    for view in views:
        assert view.objects is not None
        labels = view.objects.long()
        ids = read_id_map(scene / "object_mask_exact" / f"{view.image_name}.png")
        ids = resize_id_map(ids, view.image_width, view.image_height)
        true.add_view(labels, colors[torch.from_numpy(ids).long()].permute(2, 0, 1))
        start = time.perf_counter()
        found.add_view(labels, view.original_image)
        seconds += time.perf_counter() - start
    applied, truth = found.offsets().numpy(), true.edges()
    first, second = np.nonzero(np.isfinite(truth) & (found.profiles.reshape(truth.shape) > 0))
    points = found.profiles.reshape(truth.shape)[first, second]

    def rms(offsets: np.ndarray) -> float:
        return round(float(np.sqrt(np.average(offsets**2, weights=np.sqrt(points)))), 3)

    return {
        "masks": kind,
        "size": [views[0].image_width, views[0].image_height],
        "views": len(views),
        "rms_before": rms(truth[first, second]),
        "rms_after": rms(truth[first, second] - applied[first, second]),
        "milliseconds_per_view": round(1000 * seconds / len(views), 1),
        "pairs": {  # ids: points, applied offset, true offset
            f"{a} {b}": f"{int(n)} {applied[a, b]:+.2f} {truth[a, b]:+.2f}"
            for a, b, n in zip(first, second, points, strict=True)
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both kinds of masks; print the summary, write all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", type=Path, required=True, help="scene with object_mask_exact/")
    parser.add_argument("-r", "--resolution", type=int, default=-1, help="as train.py's")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(argv)
    results = [measure(args.scene, kind, args.resolution) for kind in KINDS]
    for result in results:
        print(json.dumps({key: value for key, value in result.items() if key != "pairs"}))
    flags = f"--scene {args.scene.name}" + f" -r {args.resolution}" * (args.resolution > 0)
    record = {
        "command": f"python benchmarks/bench_outlines.py {flags}",
        **environment(),
        **{result.pop("masks"): result for result in results},
    }
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    run_command(main)
