"""Times the kernels and whole training steps on a GPU, after they matched the CPU core on the same input.

    python benchmarks/bench_cuda.py --json out.json
    python benchmarks/bench_cuda.py --num_gaussians 1000000 --size 1297x840 --original FOLDER

Milliseconds of a call are medians over the repeats, each between two device events with many calls between
them, after a warm-up: what a loop sees, the host's part included where it is the slower one. `kernels` says
what the device alone takes: milliseconds of every kernel of a call, as PyTorch's profiler reads them from the
device. Peers that are installed run on the same tensors: gsplat; the original rasterizer from `--original`
(the folder that holds its `diff_gaussian_rasterization`); PyTorch's own losses and fused Adam. `--json` is
written anew after every entry, so that what is done is kept. `--device cpu` runs the same code without a GPU.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import numpy as np
import torch
from fused_losses import l1_ssim, linear_cross_entropy, reference
from torch import Tensor

from arguments import OptimizationParams
from benchmarks import common, machine
from gaussian_renderer import render
from scene import GaussianModel
from scene.cameras import Camera
from utils.device import select_device
from utils.errors import UserError, run_command
from utils.json_files import write_json

IDENTITY, CLASSES = 16, 256
FIELD_OF_VIEW = 1.0  # width / focal length: a normal lens
DEPTHS = (2.0, 10.0)
SIGMA_PIXELS, SIGMA_SPREAD = (
    1.2,
    0.5,
)  # median and log-deviation of the footprints, of a trained scene's order
MAX_ERROR = 2e-3  # of the norm, GPU against CPU: single pixels fall on either side of alpha = 1/255
COMPARED = 20_000  # Gaussians in that comparison
WARM_UP, REPEATS = 3, 7
SPAN = (
    20.0  # ms of calls between two events, at least: an event costs microseconds, and so does a queue's end
)
MOST_CALLS, PROFILED = 50, 5


class Clock:
    """Times calls on one device."""

    def __init__(self, device: torch.device, warm_up: int, repeats: int) -> None:
        self.device, self.warm_up, self.repeats = device, warm_up, repeats

    def milliseconds(self, call: Callable[[], Any]) -> float:
        """Median time of a call."""
        for _ in range(self.warm_up):
            call()
        calls = min(MOST_CALLS, 1 + int(SPAN / max(self._span(call, 1), 1e-3))) if self.repeats > 1 else 1
        return statistics.median(self._span(call, calls) / calls for _ in range(self.repeats))

    def kernels(self, call: Callable[[], Any]) -> dict[str, float]:
        """Milliseconds of each kernel in a call, by name, longest first: on a CPU of each operation."""
        is_gpu = self.device.type == "cuda"
        activity = torch.profiler.ProfilerActivity.CUDA if is_gpu else torch.profiler.ProfilerActivity.CPU
        call()
        with torch.profiler.profile(activities=[activity]) as profile:
            for _ in range(PROFILED):
                call()
            if is_gpu:
                torch.cuda.synchronize(self.device)
        total: dict[str, float] = {}
        for event in profile.key_averages():
            micros = event.self_device_time_total if is_gpu else event.self_cpu_time_total
            name = event.key.split("(")[0].removeprefix("void ")
            total[name] = total.get(name, 0.0) + 1e-3 * micros / PROFILED
        return dict(sorted(((n, ms) for n, ms in total.items() if ms > 0), key=lambda item: -item[1]))

    def _span(self, call: Callable[[], Any], calls: int) -> float:
        """Milliseconds of so many calls in a row."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return 1e3 * (time.perf_counter() - start)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        first.record()
        for _ in range(calls):
            call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last)


def view(width: int, height: int, device: torch.device) -> Camera:
    """A camera at the origin that looks along z, with a random photograph."""
    focal = width / FIELD_OF_VIEW
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    intrinsics = (focal, focal, width / 2, height / 2)
    return Camera(0, "view", width, height, *intrinsics, np.eye(3), np.zeros(3), image).to(device)


def random_model(count: int, width: int, height: int, device: torch.device) -> GaussianModel:
    """Gaussians that fill the view, with footprints of a few pixels whatever their depth."""
    generator = torch.Generator().manual_seed(0)
    low, high = DEPTHS
    depth = low + (high - low) * torch.rand(count, 1, generator=generator)  # (N, 1)
    half = 0.5 * FIELD_OF_VIEW * torch.tensor([1.0, height / width])
    across = (2 * torch.rand(count, 2, generator=generator) - 1) * half * depth  # (N, 2)
    pixel = depth * FIELD_OF_VIEW / width  # (N, 1) world units
    spread = torch.exp(SIGMA_SPREAD * torch.randn(count, 3, generator=generator))
    model = GaussianModel(3, device)
    model.set_params(
        {
            "xyz": torch.cat([across, depth], 1),
            "f_dc": torch.randn(count, 1, 3, generator=generator),
            "f_rest": 0.1 * torch.randn(count, 15, 3, generator=generator),
            "opacity": torch.randn(count, 1, generator=generator),
            "scaling": torch.log(SIGMA_PIXELS * pixel * spread),
            "rotation": torch.randn(count, 4, generator=generator),
            "obj_dc": torch.randn(count, 1, IDENTITY, generator=generator),
        }
    )
    model.active_sh_degree = 3
    return model


def compare_with_cpu(size: tuple[int, int], device: torch.device) -> dict[str, float]:
    """Relative error of both images and of every gradient against the CPU core's.

    Raises:
        UserError: one is off by more than MAX_ERROR.
    """
    results = []
    for place in (torch.device("cpu"), device):
        arguments = common.rasterizer_arguments(random_model(COMPARED, *size, place))
        settings = common.settings_of(view(*size, place), 3)
        results.append([t.cpu() for t in common.differentiate(common.core, arguments, settings)])
    names = ["color", "objects", *(f"dL_d{name}" for name in arguments)]
    errors = {
        name: float((ours - cpu).norm() / cpu.norm()) for name, cpu, ours in zip(names, *results, strict=True)
    }
    wrong = {name: error for name, error in errors.items() if not error <= MAX_ERROR}
    if wrong:
        raise UserError(f"the GPU differs from the CPU core by {wrong} of the norm; nothing was timed.")
    return errors


def time_rasterizer(
    rasterize: common.Rasterize, arguments: dict[str, Tensor], settings: Any, clock: Clock
) -> dict[str, float]:
    """Milliseconds of the forward pass, and of the backward pass on fixed gradients."""
    images = [image for image in rasterize(arguments, settings) if image.numel()]
    upstream = [torch.randn_like(image) for image in images]
    leaves = list(arguments.values())

    def both() -> None:
        made = [image for image in rasterize(arguments, settings) if image.numel()]
        torch.autograd.grad(made, leaves, upstream, allow_unused=True)

    forward, total = clock.milliseconds(lambda: rasterize(arguments, settings)), clock.milliseconds(both)
    return {"forward": forward, "backward": total - forward}


def time_peer(*arguments: Any) -> dict[str, Any]:
    """`time_rasterizer`, or the error: a peer of a version that we do not know must not cost the rest."""
    try:
        return time_rasterizer(*arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def time_step(model: GaussianModel, camera: Camera, channels: int, clock: Clock) -> dict[str, Any]:
    """Milliseconds of a training step without densification, by kernel too, and of what follows rendering."""
    model.training_setup(OptimizationParams())
    assert model.optimizer is not None
    optimizer, device = model.optimizer, clock.device
    weight = torch.zeros(CLASSES, IDENTITY, device=device, requires_grad=True)
    bias = torch.zeros(CLASSES, device=device, requires_grad=True)
    size = (camera.image_height, camera.image_width)
    labels = torch.randint(0, CLASSES, size, device=device).to(torch.int16)
    background = torch.zeros(3, device=device)

    def step() -> None:
        drawn = render(camera, model, bg_color=background)
        loss = l1_ssim(drawn["render"], camera.original_image, 0.2)
        if channels:
            loss = loss + linear_cross_entropy(drawn["render_object"], weight, bias, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    figures: dict[str, Any] = {"step": clock.milliseconds(step), "kernels": clock.kernels(step)}
    image = torch.rand(3, *size, device=device, requires_grad=True)
    features = torch.randn(IDENTITY, *size, device=device, requires_grad=True)
    target = camera.original_image
    parts: dict[str, Callable[[], Tensor]] = {
        "l1_ssim": lambda: l1_ssim(image, target, 0.2),
        "l1_ssim_torch": lambda: reference.l1_ssim(image, target, 0.2),
        "cross_entropy": lambda: linear_cross_entropy(features, weight, bias, labels),
        "cross_entropy_torch": lambda: reference.linear_cross_entropy(features, weight, bias, labels),
    }
    for name, loss in parts.items():
        figures[name] = clock.milliseconds(lambda loss=loss: loss().backward())  # type: ignore[misc]
    return figures | time_adam(model, clock)


def time_adam(model: GaussianModel, clock: Clock) -> dict[str, float]:
    """Milliseconds of one update of all parameters, ours and PyTorch's fused one."""
    assert model.optimizer is not None
    parameters = list(model.params.values())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    peer = torch.optim.Adam(parameters, lr=0.0, fused=True)
    return {"adam": clock.milliseconds(model.optimizer.step), "adam_torch": clock.milliseconds(peer.step)}


def load_original(folder: Path) -> ModuleType:
    """The original rasterizer, beside ours of the same name."""
    path = folder / "diff_gaussian_rasterization" / "__init__.py"
    spec = importlib.util.spec_from_file_location("original_rasterizer", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{path}: not there. --original takes the folder that holds that package.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def peers(original: Path | None) -> dict[str, common.Rasterize]:
    """The other rasterizers that can be had here."""
    found: dict[str, common.Rasterize] = {}
    if importlib.util.find_spec("gsplat") is not None:
        found["gsplat"] = by_gsplat
    if original is not None:
        found["original"] = by_original(load_original(original))
    return found


def by_gsplat(arguments: dict[str, Tensor], settings: Any) -> tuple[Tensor, Tensor]:
    """Colour, and the identity by a second pass: gsplat evaluates spherical harmonics or takes channels."""
    from gsplat import rasterization  # type: ignore[import-not-found]

    width, height = settings.image_width, settings.image_height
    focal_x, focal_y = width / (2 * settings.tanfovx), height / (2 * settings.tanfovy)
    intrinsics = torch.tensor(
        [[focal_x, 0, width / 2], [0, focal_y, height / 2], [0, 0, 1]], device=settings.viewmatrix.device
    )
    shared = (arguments["means3D"], arguments["rotations"], arguments["scales"], arguments["opacities"][:, 0])
    camera = {
        "viewmats": settings.viewmatrix.T[None],
        "Ks": intrinsics[None],
        "width": width,
        "height": height,
    }
    color = rasterization(*shared, arguments["shs"], sh_degree=settings.sh_degree, packed=False, **camera)[0]
    if "sh_objs" not in arguments:
        return color, color.new_empty(0)
    return color, rasterization(*shared, arguments["sh_objs"][:, 0], packed=False, **camera)[0]


def by_original(module: ModuleType) -> common.Rasterize:
    """Colour, and identity where this variant of it (Gaussian Grouping's) has that."""

    def rasterize(arguments: dict[str, Tensor], settings: Any) -> tuple[Tensor, Tensor]:
        fields = module.GaussianRasterizationSettings._fields
        known = {name: value for name, value in settings._asdict().items() if name in fields}
        known |= {name: False for name in fields if name not in known}
        given = dict(arguments)
        try:
            images = module.GaussianRasterizer(module.GaussianRasterizationSettings(**known))(**given)
        except TypeError:  # 3DGS's own has no sh_objs
            given.pop("sh_objs")
            images = module.GaussianRasterizer(module.GaussianRasterizationSettings(**known))(**given)
        objects = images[2] if len(images) > 2 and images[2].dim() == 3 else images[0].new_empty(0)
        return images[0], objects

    return rasterize


def measure(
    count: int, size: tuple[int, int], others: dict[str, common.Rasterize], clock: Clock
) -> list[dict[str, Any]]:
    """One entry per number of channels."""
    entries = []
    for channels in (0, IDENTITY):
        model, camera = random_model(count, *size, clock.device), view(*size, clock.device)
        arguments = common.rasterizer_arguments(model)
        if not channels:
            del arguments["sh_objs"]
        settings = common.settings_of(camera, 3)
        entry: dict[str, Any] = {"num_gaussians": count, "size": list(size), "channels": 3 + channels}
        entry["ours"] = time_rasterizer(common.core, arguments, settings, clock)
        entry |= {name: time_peer(peer, arguments, settings, clock) for name, peer in others.items()}
        if clock.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if channels:
            entry |= {"ms": time_step(model, camera, channels, clock)}
        if clock.device.type == "cuda":
            entry["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
        entries.append(entry)
    return entries


def ceilings(clock: Clock, elements: int) -> dict[str, float]:
    """What this device reaches by PyTorch's own copy and float32 matrix product."""
    source = torch.zeros(elements, device=clock.device)
    target, edge = torch.empty_like(source), int(elements**0.5) // 4
    square = torch.randn(edge, edge, device=clock.device)
    return {
        "gb_per_s": 8e-6 * elements / clock.milliseconds(lambda: target.copy_(source)),
        "fp32_tflops": 2e-9 * edge**3 / clock.milliseconds(lambda: square @ square),
    }


def image_size(text: str) -> tuple[int, int]:
    """`1297x840` as numbers."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cuda")
    parser.add_argument("--num_gaussians", type=int, nargs="+", default=[100_000, 1_000_000, 3_000_000])
    parser.add_argument(
        "--size", type=image_size, nargs="+", default=[(648, 420), (1297, 840)], help="WIDTHxHEIGHT"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--original", type=Path, help="folder with the original diff_gaussian_rasterization")
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, measure, report."""
    options = parse_arguments(argv)
    device = select_device(options.device)
    clock, others = Clock(device, min(WARM_UP, options.repeats), options.repeats), peers(options.original)
    is_gpu = device.type == "cuda"
    results: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if is_gpu else "cpu",
        "environment": machine.environment(),
        "errors_against_cpu": compare_with_cpu(options.size[0], device),
        "ceilings": ceilings(clock, 1 << 28 if is_gpu else 1 << 22),
        "results": results,
    }
    for count in options.num_gaussians:
        for size in options.size:
            results += measure(count, size, others, clock)
            print(json.dumps(results[-2:], indent=2), flush=True)
            if options.json:
                write_json(options.json, result)


if __name__ == "__main__":
    run_command(main)
