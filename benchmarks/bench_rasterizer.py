"""Times the rasterizer, forward and backward, over Gaussians, image sizes, threads and instruction sets.

    python benchmarks/bench_rasterizer.py --scene SCENE --num_gaussians 10000 30000 100000 --threads 1 2
    python benchmarks/bench_rasterizer.py --scene SCENE -r 2 1 1297x840 --isa avx512 avx2 --json out.json

Every combination is measured, each model at each size in a process of its own, so that its peak of memory is
its own. Nothing is timed before images and gradients matched the PyTorch reference: once on the scene's
points, which gives the ratio, and in every configuration on a sample of its Gaussians.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip
import torch
from diff_gaussian_rasterization import instruction_set

from arguments import ModelParams
from benchmarks import common, machine
from gradiseg.progress import peak_memory_mb
from scene import GaussianModel
from scene.cameras import Camera, target_size
from scene.dataset_readers import read_scene
from scene.views import SceneInfo
from utils.errors import run_command
from utils.json_files import write_json
from utils.memory import keep_freed_memory

VIEWS, PASSES = 3, 3  # every time is the fastest of the passes, averaged over the views
# Floating-point operations per pixel and Gaussian: 34 for power, exponential and blending; for each of 20
# channels (depth, colour, identity) 2 forward and 4 backward, its scalar sum and its gradient; backward,
# 16 more for dL_dpower and 2 for each of its 6 moments.
FORWARD_FLOPS = 34 + 2 * 20
BACKWARD_FLOPS = 34 + 4 * 20 + 16 + 2 * 6
ROW_BYTES = 128  # a packed row, and a gradient row
FORMULAS = {
    "blended_pairs_per_pixel": "16 pixels x blended blocks / pixels of the image",
    "gflops": f"({FORWARD_FLOPS} forward + {BACKWARD_FLOPS} backward) operations x blended pairs / time",
    "gb_per_s": f"(3 x 19 planes of float32 + 4 x {ROW_BYTES} bytes x instances) / time",
    "speedup": "time with the first number of threads / time",
    "isa_errors": "L2 norm of the difference from the first instruction set / its L2 norm",
}


def views(info: SceneInfo, size: str) -> list[Camera]:
    """The first cameras, without photographs, at `size`: WIDTHxHEIGHT, or what train.py takes as -r."""
    cameras = []
    for index, view in enumerate(info.train_cameras[:VIEWS]):
        intrinsics = (view.fx, view.fy, view.cx, view.cy)
        camera = Camera(index, view.image_name, view.width, view.height, *intrinsics, view.R, view.T)
        if "x" in size:
            width, height = map(int, size.split("x"))
        else:
            width, height = target_size(view.width, view.height, int(size))
        cameras.append(camera.at_resolution(width, height))
    return cameras


def start(info: SceneInfo, count: int | None = None) -> tuple[GaussianModel, str]:
    """The model that training starts from, with `count` Gaussians, and where they come from."""
    model = GaussianModel()
    model.create_from_pcd(info.point_cloud, info.nerf_normalization["radius"])
    return model, common.resample(model, count or model.num_gaussians)


def one_pass(arguments: common.Arguments, settings: Any, upstream: list[torch.Tensor]) -> tuple[float, ...]:
    """Milliseconds forward and backward; Gaussians seen, their tile instances, blended blocks."""
    begin = time.perf_counter()
    images = common.core(arguments, settings)
    forward = time.perf_counter() - begin
    frame = images[0].grad_fn.call[0].frame  # type: ignore[union-attr]
    work = (frame.num_visible, frame.num_instances, frame.count_blended_blocks())
    begin = time.perf_counter()
    torch.autograd.grad(images, list(arguments.values()), upstream)
    return 1e3 * forward, 1e3 * (time.perf_counter() - begin), *work


def measure(model: GaussianModel, cameras: list[Camera]) -> dict[str, Any]:
    """Times and work with the current threads and instruction set, averages over the views."""
    arguments, rows = common.rasterizer_arguments(model), []
    for camera in cameras:
        settings = common.settings_of(camera, model.active_sh_degree)
        upstream = common.upstream_gradients(settings)
        passes = [one_pass(arguments, settings, upstream) for _ in range(PASSES)]
        rows.append([min(column) for column in zip(*passes, strict=True)])
    forward, backward, visible, instances, blocks = map(statistics.fmean, zip(*rows, strict=True))
    ms, pixels = forward + backward, settings.image_width * settings.image_height
    traffic = 3 * 4 * 19 * pixels + 4 * ROW_BYTES * instances  # images: written, read with their gradients
    return {
        "instruction_set": instruction_set(),
        "threads": torch.get_num_threads(),
        "ms": ms,
        "stages": {"forward": forward, "backward": backward},
        "visible": visible,
        "instances_per_gaussian": instances / max(visible, 1),
        "blended_pairs_per_pixel": 16 * blocks / pixels,
        "gflops": 16 * blocks * (FORWARD_FLOPS + BACKWARD_FLOPS) / ms * 1e-6,
        "gb_per_s": traffic / ms * 1e-6,
    }


def beside_reference(options: argparse.Namespace, info: SceneInfo) -> dict[str, Any]:
    """Proof and ratio, on the points of the scene at the first size."""
    torch.set_num_threads(max(options.threads))
    os.environ["GS_RASTERIZER_ISA"] = options.isa[0]
    figures = common.compare(start(info)[0], views(info, options.resolution[0])[0], **common.COMPARED)
    return {"threads": max(options.threads), **figures}


def check(options: argparse.Namespace, info: SceneInfo, size: str, count: int) -> dict[str, Any]:
    """Errors of one model at one size, by instruction set: from the reference, and from the first set."""
    (model, _), camera = start(info, count), views(info, size)[0]
    arguments, figures = common.rasterizer_arguments(model), {}
    settings = common.settings_of(camera, model.active_sh_degree)
    names = ("color", "objects", *(f"gradient of {name}" for name in arguments))
    for isa in options.isa:
        os.environ["GS_RASTERIZER_ISA"] = isa
        figures[isa] = {"check": common.compare(model, camera, **common.CHECKED)}
        tensors = common.differentiate(common.core, arguments, settings)
        if isa == options.isa[0]:
            first = tensors
        else:
            errors = common.relative_errors(tensors, first)
            figures[isa]["isa_errors"] = dict(zip(names, errors, strict=True))
    return figures


def configuration(
    options: argparse.Namespace, info: SceneInfo, size: str, count: int
) -> list[dict[str, Any]]:
    """One model at one size, with every instruction set and number of threads."""
    keep_freed_memory()  # as training does
    cameras, (model, points) = views(info, size), start(info, count)
    entries: list[dict[str, Any]] = []
    image = [cameras[0].image_width, cameras[0].image_height]
    for isa in options.isa:
        os.environ["GS_RASTERIZER_ISA"] = isa
        for index, threads in enumerate(options.threads):
            torch.set_num_threads(threads)
            figures = measure(model, cameras)
            slowest = entries[-index]["ms"] if index else figures["ms"]
            about = {"image": image, "num_gaussians": count, "points": points}
            entries.append(
                {**about, **figures, "speedup": slowest / figures["ms"], "peak_mb": peak_memory_mb()}
            )
    return entries


def ceilings(threads: int) -> dict[str, float]:
    """Of the machine with so many threads."""
    torch.set_num_threads(threads)
    return machine.ceilings()


def table(results: list[dict[str, Any]]) -> str:
    """The measurements, a line each."""
    lines = [
        "    image  Gaussians  ISA       threads  forward  backward       ms  speedup  GFLOP/s   GB/s     MB"
    ]
    for r in results:
        image = "x".join(map(str, r["image"]))
        lines.append(
            f"{image:>9}  {r['num_gaussians']:>9}  {r['instruction_set']:<8}  {r['threads']:>7}"
            f"  {r['stages']['forward']:>7.1f}  {r['stages']['backward']:>8.1f}  {r['ms']:>7.1f}"
            f"  {r['speedup']:>7.2f}"
            f"  {r['gflops']:>7.1f}  {r['gb_per_s']:>5.2f}  {r['peak_mb']:>5.0f}"
        )
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scene", required=True, help="scene folder")
    parser.add_argument(
        "-r", "--resolution", nargs="+", default=["1"], help="as train.py takes it, or WIDTHxHEIGHT"
    )
    parser.add_argument("--num_gaussians", type=int, nargs="+", help="default: the scene's points")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--isa", nargs="+", default=[instruction_set()], help="avx512, avx2, baseline")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args()


def main() -> None:
    """Compare, measure, report."""
    options = parse_arguments()
    info = read_scene(ModelParams(source_path=options.scene, model_path=""))
    reference = machine.alone(beside_reference, options, info)
    result: dict[str, Any] = {
        "scene": Path(options.scene).resolve().name,
        "environment": machine.environment(),
        "formulas": FORMULAS,
        "reference": reference,
        "ceilings": [machine.alone(ceilings, threads) for threads in options.threads],
        "results": [],
    }
    for size in options.resolution:
        for count in options.num_gaussians or [len(info.point_cloud.points)]:
            errors = machine.alone(check, options, info, size, count)
            measured = machine.alone(configuration, options, info, size, count)
            result["results"] += [{**entry, **errors[entry["instruction_set"]]} for entry in measured]
    print(table(result["results"]))
    print(
        "{ratio_to_reference:.0f} times as fast as the reference ({num_gaussians} Gaussians)".format(
            **reference
        )
    )
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_command(main)
