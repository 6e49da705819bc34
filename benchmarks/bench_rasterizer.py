"""Times the rasterizer, forward and backward, over numbers of Gaussians and of threads.

    python benchmarks/bench_rasterizer.py --scene data/demo --num_gaussians 10000 30000 --threads 1 2

Nothing is timed before the images and the gradients of the first configuration matched the PyTorch reference.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import torch

from arguments import ModelParams
from benchmarks import common
from gradiseg.records import write_json
from scene import GaussianModel, Scene

VIEWS, PASSES = 6, 4  # every time is the fastest of the passes, averaged over the views
# Floating-point operations per pixel and Gaussian: 34 for power, exponential and blending; for each of 20
# channels (depth, colour, identity) 2 forward and 4 backward, its scalar sum and its gradient; backward,
# 16 more for dL_dpower and 2 for each of its 6 moments.
FORWARD_FLOPS = 34 + 2 * 20
BACKWARD_FLOPS = 34 + 4 * 20 + 16 + 2 * 6
ROW_BYTES = 128  # a packed row, and a gradient row


def measure(model: GaussianModel, scene: Scene) -> dict[str, Any]:
    """Milliseconds and work of one configuration, averages over VIEWS views."""
    times: dict[str, list[float]] = {"forward": [], "backward": []}
    work: dict[str, list[int]] = {"visible": [], "instances": [], "blocks": []}
    for camera in scene.getTrainCameras()[:VIEWS]:
        settings = common.settings_of(camera, model.active_sh_degree)
        arguments, upstream = common.rasterizer_arguments(model), common.upstream_gradients(settings)
        passes: list[tuple[float, float]] = []
        for _ in range(PASSES):
            start = time.perf_counter()
            images = common.core(arguments, settings)
            middle = time.perf_counter()
            frame = images[0].grad_fn.call[0].frame  # type: ignore[union-attr]
            counts = (frame.num_visible, frame.num_instances, frame.count_blended_blocks())
            begin = time.perf_counter()
            torch.autograd.grad(images, list(arguments.values()), upstream)
            passes.append((middle - start, time.perf_counter() - begin))
        for name, values in zip(times, zip(*passes, strict=True), strict=True):
            times[name].append(1e3 * min(values))
        for name, count in zip(work, counts, strict=True):
            work[name].append(count)
    averages = {name: statistics.fmean(values) for name, values in (times | work).items()}
    return record(averages, model.num_gaussians, settings.image_width * settings.image_height)


def record(mean: dict[str, float], num_gaussians: int, pixels: int) -> dict[str, Any]:
    """What one configuration is reported as."""
    seconds = 1e-3 * (mean["forward"] + mean["backward"])
    pairs = 16 * mean["blocks"]
    images = 3 * 4 * 19 * pixels  # written once, read with their gradients
    return {
        "num_gaussians": num_gaussians,
        "threads": torch.get_num_threads(),
        "stages": {"forward": mean["forward"], "backward": mean["backward"]},
        "ms": 1e3 * seconds,
        "visible": mean["visible"],
        "instances_per_gaussian": mean["instances"] / max(mean["visible"], 1),
        "blended_pairs_per_pixel": pairs / pixels,
        "gflops": pairs * (FORWARD_FLOPS + BACKWARD_FLOPS) / seconds * 1e-9,
        "gb_per_s": (images + 4 * ROW_BYTES * mean["instances"]) / seconds * 1e-9,
    }


def main() -> None:
    """Read the options, check, measure, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scene", required=True, help="scene folder")
    parser.add_argument("-r", "--resolution", type=int, default=1, help="as train.py takes it")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--num_gaussians", type=int, nargs="+", help="default: the scene's points")
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args()

    model = GaussianModel()
    with tempfile.TemporaryDirectory() as folder:
        args = ModelParams(source_path=options.scene, model_path=folder, resolution=options.resolution)
        scene = Scene(args, model, quiet=True)
    first = scene.getTrainCameras()[0]
    torch.set_num_threads(options.threads[0])
    result: dict[str, Any] = {
        "scene": Path(options.scene).name,
        "image": [first.image_width, first.image_height],
        "environment": common.environment(),
        "reference": common.check_and_compare(model, common.settings_of(first, model.active_sh_degree)),
        "ceilings": [],
        "results": [],
    }
    for threads in options.threads:
        torch.set_num_threads(threads)
        result["ceilings"].append({"threads": threads, **common.ceilings()})
    for count in options.num_gaussians or [model.num_gaussians]:
        if count != model.num_gaussians:
            common.resample(model, count)
        for threads in options.threads:
            torch.set_num_threads(threads)
            result["results"].append(measure(model, scene))
    print(json.dumps(result, indent=2))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
