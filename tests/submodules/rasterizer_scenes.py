"""Random scenes for the rasterizer's tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, reference
from torch import Tensor

SMOOTH_MARGIN = 1e-3  # a finite difference of step 1e-6 moves no threshold quantity by half of it


def random_camera(
    width: int,
    height: int,
    dtype: torch.dtype,
    sh_degree: int = 3,
    principal: tuple[float, float] = (0.0, 0.0),
    **changes: Any,
) -> GaussianRasterizationSettings:
    """A camera near the origin, looking along +z, slightly turned; `principal` is its offset in NDC."""
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


def random_gaussians(
    n: int, dtype: torch.dtype, seed: int = 0, channels: int = 16, size: float = 0.08
) -> dict[str, Tensor]:
    """N Gaussians in a box before `random_camera`, some behind it or off screen, as rasterizer arguments."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64).to(dtype)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    means = (rand(n, 3) - 0.5) * torch.tensor([4.0, 3.0, 4.0], dtype=dtype) + torch.tensor(
        [0.0, 0.0, 1.8], dtype=dtype
    )
    return dict(
        means3D=means,
        means2D=torch.zeros(n, 3, dtype=dtype),
        opacities=rand(n, 1) * 1.1 - 0.05,  # from invisible to the clamp at 0.99
        shs=randn(n, 16, 3) * 0.3,
        sh_objs=randn(n, 1, channels),
        scales=size * torch.exp(randn(n, 3)),
        rotations=randn(n, 4),
    )


def plain_camera(
    width: int, height: int, dtype: torch.dtype = torch.float64, **changes: Any
) -> GaussianRasterizationSettings:
    """A camera at the origin that looks along +z, focal length = width, black background.

    The view point (x, y, z) lands on the pixel (width x/z + (width - 1)/2, width y/z + (height - 1)/2).
    """
    tan_x, tan_y = 0.5, 0.5 * height / width
    projection = torch.zeros(4, 4, dtype=dtype)
    projection[0, 0], projection[1, 1] = 1 / tan_x, 1 / tan_y
    projection[2, 2] = projection[2, 3] = 1
    fields = dict(
        image_height=height,
        image_width=width,
        tanfovx=tan_x,
        tanfovy=tan_y,
        bg=torch.zeros(3, dtype=dtype),
        scale_modifier=1.0,
        viewmatrix=torch.eye(4, dtype=dtype),
        projmatrix=projection,
        sh_degree=0,
        campos=torch.zeros(3, dtype=dtype),
    )
    return GaussianRasterizationSettings(**{**fields, **changes})


def balls(
    settings: GaussianRasterizationSettings, pixels: Sequence[tuple[float, float, float]], **changes: Any
) -> dict[str, Tensor]:
    """Round, white, half opaque Gaussians centred on `pixels` (x, y, depth) of a `plain_camera`."""
    dtype, width, height = settings.bg.dtype, settings.image_width, settings.image_height
    x, y, z = torch.tensor(pixels, dtype=dtype).unbind(1)
    n = len(pixels)
    fields = dict(
        means3D=torch.stack([(x - (width - 1) / 2) * z / width, (y - (height - 1) / 2) * z / width, z], 1),
        means2D=torch.zeros(n, 3, dtype=dtype),
        opacities=torch.full((n, 1), 0.5, dtype=dtype),
        colors_precomp=torch.ones(n, 3, dtype=dtype),
        sh_objs=torch.ones(n, 1, 2, dtype=dtype),
        scales=torch.full((n, 3), 0.05, dtype=dtype),
        rotations=torch.tensor([[1.0, 0, 0, 0]], dtype=dtype).repeat(n, 1),
    )
    return fields | changes


def pack_symmetric(matrices: Tensor) -> Tensor:
    """(N,3,3) -> (N,6) xx xy xz yy yz zz."""
    row, column = torch.triu_indices(3, 3)
    return matrices[:, row, column]


def smooth_scene(
    n: int, width: int, height: int, sh_degree: int, channels: int
) -> tuple[dict[str, Tensor], GaussianRasterizationSettings]:
    """A float64 scene in view and off every discontinuity by SMOOTH_MARGIN: the first seed that gives one."""
    settings = random_camera(width, height, torch.float64, sh_degree, principal=(0.1, -0.2))
    for seed in range(1000):
        gaussians = random_gaussians(n, torch.float64, seed, channels)
        centre = torch.tensor([0.0, 0.0, 1.8], dtype=torch.float64)
        gaussians["means3D"] = centre + 0.2 * (gaussians["means3D"] - centre)
        gaussians["opacities"] = 0.15 + 0.65 * gaussians["opacities"].clamp(0, 1)
        gaussians["scales"] = gaussians["scales"].clamp(0.03, 0.3)
        if threshold_margin(gaussians, settings) > SMOOTH_MARGIN:
            return gaussians, settings
    raise AssertionError("no smooth scene found")


def threshold_margin(gaussians: dict[str, Tensor], settings: GaussianRasterizationSettings) -> float:
    """The least distance of a scene from the renderer's discontinuities.

    They are: alpha = 1/255 (relative distance), a radius at a whole pixel, a 3-sigma box at the edge of a
    tile (pixels), two equal depths, a colour at 0, x/z and y/z at the frustum clamp, transmittance 1e-4
    (negative unless twice that remains everywhere).
    """
    s, means = settings, gaussians["means3D"]
    homogeneous = torch.cat([means, torch.ones_like(means[:, :1])], 1)  # (N,4)
    view_points, hom = homogeneous @ s.viewmatrix, homogeneous @ s.projmatrix  # (N,4)
    size = torch.tensor([s.image_width, s.image_height])
    centres = ((hom[:, :2] / hom[:, 3:] + 1) * size - 1) / 2  # (N,2)
    sigma = reference.covariances_3d(gaussians["scales"], gaussians["rotations"], s.scale_modifier)
    cov = reference.project_covariances(sigma, view_points[:, :3], s)  # (N,2,2)
    mid, det = cov.diagonal(dim1=1, dim2=2).mean(1), torch.linalg.det(cov)
    radii = 3 * (mid + (mid * mid - det).clamp_min(0.1).sqrt()).sqrt()  # (N,)
    edges = torch.cat([centres - radii.ceil()[:, None], centres + radii.ceil()[:, None] - 1], 1)  # (N,4)
    ys, xs = torch.meshgrid(torch.arange(s.image_height), torch.arange(s.image_width), indexing="ij")
    d = torch.stack([xs, ys], -1).reshape(-1, 1, 2) - centres  # (P,N,2)
    power = -0.5 * torch.einsum("pni,nij,pnj->pn", d, torch.linalg.inv(cov), d)
    alpha = gaussians["opacities"][:, 0] * power.exp()  # (P,N)
    clamp = reference.FRUSTUM_CLAMP * torch.tensor([s.tanfovx, s.tanfovy])
    distances = (
        (alpha / reference.ALPHA_MIN - 1).abs(),
        (radii - radii.round()).abs(),
        reference.TILE * (edges / reference.TILE - (edges / reference.TILE).round()).abs(),
        view_points[:, 2].sort().values.diff(),
        reference.sh_colors(means, gaussians["shs"], s),
        clamp - (view_points[:, :2] / view_points[:, 2:3]).abs(),
        (1 - alpha).prod(1) - 2 * reference.TRANSMITTANCE_MIN,
    )
    return min(float(distance.min()) for distance in distances)
