"""Random scenes for the rasterizer's tests."""

from __future__ import annotations

import math

import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings
from torch import Tensor


def random_camera(
    width: int, height: int, dtype: torch.dtype, sh_degree: int = 3, principal: tuple[float, float] = (0.0, 0.0), **changes
) -> GaussianRasterizationSettings:
    """A camera near the origin that looks along +z, slightly turned; `principal` shifts the principal point, in NDC."""
    tan_x = 0.6
    tan_y = tan_x * height / width
    angle = 0.1
    view = torch.eye(4, dtype=dtype)
    view[0, 0] = view[2, 2] = math.cos(angle)
    view[0, 2], view[2, 0] = math.sin(angle), -math.sin(angle)
    view[3, :3] = torch.tensor([0.1, -0.05, 0.3], dtype=dtype)
    near, far = 0.01, 100.0
    projection = torch.zeros(4, 4, dtype=dtype)
    projection[0, 0], projection[1, 1] = 1 / tan_x, 1 / tan_y
    projection[2, 0], projection[2, 1] = principal
    projection[2, 2], projection[3, 2] = far / (far - near), -far * near / (far - near)
    projection[2, 3] = 1
    fields = dict(
        image_height=height,
        image_width=width,
        tanfovx=tan_x,
        tanfovy=tan_y,
        bg=torch.tensor([0.2, 0.5, 0.7], dtype=dtype),
        scale_modifier=1.0,
        viewmatrix=view,
        projmatrix=view @ projection,
        sh_degree=sh_degree,
        campos=torch.linalg.inv(view)[3, :3],
    )
    return GaussianRasterizationSettings(**{**fields, **changes})


def random_gaussians(n: int, dtype: torch.dtype, seed: int = 0, channels: int = 16, size: float = 0.08) -> dict[str, Tensor]:
    """N Gaussians in a box in front of `random_camera`, some of them behind it or off screen, as rasterizer arguments."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64).to(dtype)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    means = (rand(n, 3) - 0.5) * torch.tensor([4.0, 3.0, 4.0], dtype=dtype) + torch.tensor([0.0, 0.0, 1.8], dtype=dtype)
    return dict(
        means3D=means,
        means2D=torch.zeros(n, 3, dtype=dtype),
        opacities=rand(n, 1) * 1.1 - 0.05,  # from invisible to the clamp at 0.99
        shs=randn(n, 16, 3) * 0.3,
        sh_objs=randn(n, 1, channels),
        scales=size * torch.exp(randn(n, 3)),
        rotations=torch.nn.functional.normalize(randn(n, 4), dim=1),
    )
