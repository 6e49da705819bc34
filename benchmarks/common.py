"""What the benchmarks share: scenes of any size, the check against the reference, the ceilings."""

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import torch
from diff_gaussian_rasterization import (
    GaussianRasterizationSettings,
    GaussianRasterizer,
    instruction_set,
    reference,
)
from torch import Tensor

from scene import GaussianModel
from scene.cameras import Camera
from scene.dataset_readers import BasicPointCloud
from utils.sh import SH2RGB

Rasterize = Callable[[dict[str, Tensor], GaussianRasterizationSettings], tuple[Tensor, Tensor]]

# Of the L2 norm. In float32 single pixels of single Gaussians fall on either side of alpha = 1/255,
# so the proof is the float64 one. The last type is the one whose times count.
MAX_ERROR = {torch.float64: 1e-9, torch.float32: 1e-2}


def resample(model: GaussianModel, count: int) -> None:
    """Start `model` again from `count` points: a subset, or copies scattered by the local spacing."""
    generator = torch.Generator().manual_seed(0)
    n = model.num_gaussians
    index = torch.randperm(n, generator=generator)[:count]
    if count > n:
        index = torch.cat([index, torch.randint(n, (count - n,), generator=generator)])
    points, spacing = model.get_xyz.detach()[index], model.get_scaling.detach()[index]
    points[n:] += torch.randn(points[n:].shape, generator=generator) * spacing[n:]
    colors = SH2RGB(model.params["f_dc"].detach()[index, 0]).clamp(0, 1)
    cloud = BasicPointCloud(points.numpy(), colors.numpy())
    model.create_from_pcd(cloud, model.spatial_lr_scale)


def rasterizer_arguments(model: GaussianModel) -> dict[str, Tensor]:
    """The model as leaf tensors that the rasterizer and its reference take."""
    values = {
        "means3D": model.get_xyz,
        "means2D": torch.zeros_like(model.get_xyz),
        "opacities": model.get_opacity,
        "shs": model.get_features,
        "sh_objs": model.get_objects,
        "scales": model.get_scaling,
        "rotations": model.get_rotation,
    }
    return {name: value.detach().clone().requires_grad_() for name, value in values.items()}


def settings_of(camera: Camera, sh_degree: int) -> GaussianRasterizationSettings:
    """`camera` as the rasterizer takes it, with a black background."""
    return GaussianRasterizationSettings(
        image_height=camera.image_height,
        image_width=camera.image_width,
        tanfovx=0.5 * camera.image_width / camera.fx,
        tanfovy=0.5 * camera.image_height / camera.fy,
        bg=torch.zeros(3, device=camera.world_view_transform.device),
        scale_modifier=1.0,
        viewmatrix=camera.world_view_transform,
        projmatrix=camera.full_proj_transform,
        sh_degree=sh_degree,
        campos=camera.camera_center,
    )


def core(arguments: dict[str, Tensor], settings: GaussianRasterizationSettings) -> tuple[Tensor, Tensor]:
    """Colour (3,H,W) and identity (D,H,W) by the compiled core."""
    color, _, objects = GaussianRasterizer(settings)(**arguments)
    return color, objects


def by_reference(
    arguments: dict[str, Tensor], settings: GaussianRasterizationSettings
) -> tuple[Tensor, Tensor]:
    """The same by the PyTorch definition."""
    color, _, objects, _, _ = reference.rasterize(settings=settings, **arguments)
    return color, objects


def upstream_gradients(settings: GaussianRasterizationSettings, channels: int = 16) -> list[Tensor]:
    """Fixed random gradients of the two images."""
    generator = torch.Generator().manual_seed(0)
    size = (settings.image_height, settings.image_width)
    return [torch.randn(c, *size, generator=generator) for c in (3, channels)]


def differentiate(
    function: Rasterize, arguments: dict[str, Tensor], settings: GaussianRasterizationSettings
) -> list[Tensor]:
    """Both images, then the gradients of every argument."""
    images = function(arguments, settings)
    upstream = [gradient.to(images[0]) for gradient in upstream_gradients(settings)]
    gradients = torch.autograd.grad(images, list(arguments.values()), upstream)
    return [tensor.detach() for tensor in (*images, *gradients)]


def timed(function: Rasterize, *args: Any, repeats: int = 1) -> tuple[list[Tensor], float]:
    """`differentiate`, and the milliseconds of the fastest of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        tensors = differentiate(function, *args)
        times.append(1e3 * (time.perf_counter() - start))
    return tensors, min(times)


def check_and_compare(model: GaussianModel, settings: GaussianRasterizationSettings) -> dict[str, float]:
    """Refuse results that differ from the reference's; milliseconds of both, forward and backward.

    Raises:
        SystemExit: an image or a gradient is off by more than MAX_ERROR.
    """
    figures: dict[str, float] = {}
    for dtype, limit in MAX_ERROR.items():
        arguments = {
            name: value.detach().to(dtype).requires_grad_()
            for name, value in rasterizer_arguments(model).items()
        }
        (ours, ms), (theirs, reference_ms) = (
            timed(core, arguments, settings, repeats=5),
            timed(by_reference, arguments, settings),
        )
        # Round Gaussians have no gradient with respect to their rotation: there, both are rounding errors.
        floor = 1e-6 * max(float(b.norm()) for b in theirs)
        error = max(
            float((a - b).norm()) / max(float(b.norm()), floor) for a, b in zip(ours, theirs, strict=True)
        )
        if not error <= limit:
            raise SystemExit(f"error: the {dtype} core is off by {error:.1e} of the norm; nothing was timed.")
        figures[f"error_{dtype}".replace("torch.", "")] = error
    return figures | {"ms": ms, "reference_ms": reference_ms, "ratio_to_reference": reference_ms / ms}


def ceilings() -> dict[str, float]:
    """What this machine reaches now with the current number of threads: products and copies by PyTorch."""

    def best(call: Callable[[], Any]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    a, b, big = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.zeros(1 << 25)
    target = torch.empty_like(big)
    return {
        "gflops": 2 * 1024**3 / best(lambda: a @ b) * 1e-9,
        "gb_per_s": 2 * 4 * big.numel() / best(lambda: target.copy_(big)) * 1e-9,
    }


def environment() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "instruction_set": instruction_set(),
        "torch": torch.__version__,
    }
