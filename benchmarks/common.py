"""Models of any size for the benchmarks, and the rasterizer beside its reference."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, reference
from torch import Tensor

from benchmarks.machine import timed
from scene import GaussianModel
from scene.cameras import Camera
from scene.views import BasicPointCloud
from utils.errors import UserError
from utils.sh import SH2RGB

Arguments = dict[str, Tensor]
Rasterize = Callable[[Arguments, GaussianRasterizationSettings], tuple[Tensor, Tensor]]

# Of the L2 norm. In float32 single pixels of single Gaussians fall on either side of alpha = 1/255,
# so the proof is the float64 one. The last type is the one whose times count.
MAX_ERROR = {torch.float64: 1e-9, torch.float32: 1e-2}
# Of the largest norm: what is smaller counts as zero. Round Gaussians have no gradient by their rotation.
NEGLIGIBLE = {torch.float64: 1e-6, torch.float32: 1e-4}
# What of a model and of a view takes the reference moments, and what takes it seconds.
CHECKED = {"num_gaussians": 2_000, "pixels": 30_000}
COMPARED = {"num_gaussians": 30_000, "pixels": 250_000}


def resample(model: GaussianModel, count: int) -> str:
    """Start `model` again from `count` points, a subset or copies; returns which, for the record."""
    n = model.num_gaussians
    if count == n:
        return "the scene's"
    generator = torch.Generator().manual_seed(0)
    index = torch.randperm(n, generator=generator)[:count]
    if count > n:
        index = torch.cat([index, torch.randint(n, (count - n,), generator=generator)])
    points, spacing = model.get_xyz.detach()[index], model.get_scaling.detach()[index]
    points[n:] += torch.randn(points[n:].shape, generator=generator) * spacing[n:]
    colors = SH2RGB(model.params["f_dc"].detach()[index, 0]).clamp(0, 1)
    model.create_from_pcd(BasicPointCloud(points.numpy(), colors.numpy()), model.spatial_lr_scale)
    return "random subset" if count < n else "the scene's, and random ones scattered by the local spacing"


def rasterizer_arguments(model: GaussianModel) -> Arguments:
    """The model as leaf tensors that the rasterizer and its reference take."""
    values = {
        "means3D": model.get_xyz,
        "means2D": torch.zeros_like(model.get_xyz),
        "opacities": model.get_opacity,
        "shs": model.get_features[:, : (model.active_sh_degree + 1) ** 2],
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


def core(arguments: Arguments, settings: GaussianRasterizationSettings) -> tuple[Tensor, Tensor]:
    """Colour (3,H,W) and identity (D,H,W) by the compiled core."""
    color, _, objects = GaussianRasterizer(settings)(**arguments)
    return color, objects


def by_reference(arguments: Arguments, settings: GaussianRasterizationSettings) -> tuple[Tensor, Tensor]:
    """The same by the PyTorch definition."""
    color, _, objects, _, _ = reference.rasterize(settings=settings, **arguments)
    return color, objects


def upstream_gradients(settings: GaussianRasterizationSettings, channels: int = 16) -> list[Tensor]:
    """Fixed random gradients of the two images."""
    generator = torch.Generator().manual_seed(0)
    size = (settings.image_height, settings.image_width)
    return [torch.randn(c, *size, generator=generator) for c in (3, channels)]


def differentiate(
    function: Rasterize, arguments: Arguments, settings: GaussianRasterizationSettings
) -> list[Tensor]:
    """Both images, then the gradients of every argument."""
    images = function(arguments, settings)
    upstream = [gradient.to(images[0]) for gradient in upstream_gradients(settings)]
    gradients = torch.autograd.grad(images, list(arguments.values()), upstream)
    return [tensor.detach() for tensor in (*images, *gradients)]


def relative_errors(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[float]:
    """Norm of every difference over the norm of `theirs`."""
    norms = [float(tensor.norm()) for tensor in theirs]
    floor = NEGLIGIBLE[theirs[0].dtype] * max(norms)
    return [float((a - b).norm()) / max(norm, floor) for a, b, norm in zip(ours, theirs, norms, strict=True)]


def compare(model: GaussianModel, camera: Camera, num_gaussians: int, pixels: int) -> dict[str, Any]:
    """Errors and times, forward and backward, beside the reference's.

    Of a larger model or view, random Gaussians and a smaller image are compared; the record says how many.

    Raises:
        UserError: an image or a gradient is off by more than MAX_ERROR.
    """
    width, height = camera.image_width, camera.image_height
    if (scale := (pixels / (width * height)) ** 0.5) < 1:
        camera = camera.at_resolution(round(scale * width), round(scale * height))
    settings = settings_of(camera, model.active_sh_degree)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(model.num_gaussians, generator=generator)[:num_gaussians].sort().values
    figures: dict[str, Any] = {
        "num_gaussians": len(chosen),
        "image": [camera.image_width, camera.image_height],
    }
    for dtype, limit in MAX_ERROR.items():
        arguments = {
            name: value.detach()[chosen].to(dtype).requires_grad_()
            for name, value in rasterizer_arguments(model).items()
        }
        ours, ms = timed(partial(differentiate, core, arguments, settings))
        theirs, reference_ms = timed(partial(differentiate, by_reference, arguments, settings), 1)
        error = max(relative_errors(ours, theirs))
        if not error <= limit:
            raise UserError(f"the {dtype} core is off by {error:.1e} of the norm; nothing was timed.")
        figures[f"error_{dtype}".replace("torch.", "")] = error
    return figures | {"ms": ms, "reference_ms": reference_ms, "ratio_to_reference": reference_ms / ms}
