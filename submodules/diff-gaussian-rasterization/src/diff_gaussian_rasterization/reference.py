"""The rasterizer's definition in plain PyTorch: any dtype, differentiated by autograd, slow, obviously right.

Shapes: N Gaussians, D identity channels, H x W image. Matrices are row-vector (transposed) as 3DGS passes
them. The conventions (constants below) are those of the original 3DGS rasterizer; each is stated where it
acts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from . import GaussianRasterizationSettings

TILE = 16  # pixels; a Gaussian reaches the tiles that its 3-sigma box touches
LOW_PASS = 0.3  # px^2 added to the 2D covariance
ALPHA_MAX = 0.99  # the gradient passes this clamp
ALPHA_MIN = 1 / 255
TRANSMITTANCE_MIN = 1e-4  # a pixel is finished before the Gaussian that would fall below it
NEAR = 0.2  # scene units
FRUSTUM_CLAMP = 1.3  # times tan(fov / 2)

SH_C0 = 0.28209479177387814
SH_C1 = 0.4886025119029199
SH_C2 = (
    1.0925484305920792,
    -1.0925484305920792,
    0.31539156525252005,
    -1.0925484305920792,
    0.5462742152960396,
)
SH_C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)


def rotation_matrices(q: Tensor) -> Tensor:
    """(N,3,3) from quaternions (N,4) w x y z of any length."""
    w, x, y, z = torch.nn.functional.normalize(q, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def covariances_3d(scales: Tensor, rotations: Tensor, modifier: float) -> Tensor:
    """(N,3,3): R S S^T R^T."""
    m = rotation_matrices(rotations) * (modifier * scales)[:, None, :]  # (N,3,3)
    return m @ m.transpose(1, 2)


def unpack_symmetric(c: Tensor) -> Tensor:
    """(N,6) xx xy xz yy yz zz -> (N,3,3)."""
    return c[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)


def project_covariances(sigma: Tensor, view_points: Tensor, s: GaussianRasterizationSettings) -> Tensor:
    """(N,2,2): J W Sigma W^T J^T + 0.3 I (EWA); x/z and y/z are clamped to 1.3 tan(fov/2) in J."""
    z = view_points[:, 2]
    x = (view_points[:, 0] / z).clamp(-FRUSTUM_CLAMP * s.tanfovx, FRUSTUM_CLAMP * s.tanfovx)
    y = (view_points[:, 1] / z).clamp(-FRUSTUM_CLAMP * s.tanfovy, FRUSTUM_CLAMP * s.tanfovy)
    fx, fy = s.image_width / (2 * s.tanfovx), s.image_height / (2 * s.tanfovy)
    zero = torch.zeros_like(z)
    j = torch.stack([fx / z, zero, -fx * x / z, zero, fy / z, -fy * y / z], -1).reshape(-1, 2, 3)
    t = j @ s.viewmatrix[:3, :3].to(sigma).T  # (N,2,3)
    return t @ sigma @ t.transpose(1, 2) + LOW_PASS * torch.eye(2, dtype=sigma.dtype)


def sh_basis(degree: int, d: Tensor) -> Tensor:
    """(N,(degree+1)^2) real spherical harmonics at unit directions (N,3)."""
    x, y, z = d.unbind(-1)
    b = [torch.full_like(x, SH_C0)]
    if degree > 0:
        b += [-SH_C1 * y, SH_C1 * z, -SH_C1 * x]
    if degree > 1:
        quadratics = (x * y, y * z, 2 * z * z - x * x - y * y, x * z, x * x - y * y)
        b += [c * v for c, v in zip(SH_C2, quadratics, strict=True)]
    if degree > 2:
        cubics = (
            y * (3 * x * x - y * y),
            x * y * z,
            y * (4 * z * z - x * x - y * y),
            z * (2 * z * z - 3 * x * x - 3 * y * y),
            x * (4 * z * z - x * x - y * y),
            z * (x * x - y * y),
            x * (x * x - 3 * y * y),
        )
        b += [c * v for c, v in zip(SH_C3, cubics, strict=True)]
    return torch.stack(b, -1)


def sh_colors(means: Tensor, shs: Tensor, s: GaussianRasterizationSettings) -> Tensor:
    """(N,3) = max(0, SH + 1/2), seen from the camera."""
    directions = torch.nn.functional.normalize(means - s.campos.to(means), dim=1)
    basis = sh_basis(s.sh_degree, directions)  # (N,K)
    return (torch.einsum("nk,nkc->nc", basis, shs[:, : basis.shape[1]]) + 0.5).clamp_min(0)


def tile_boxes(centres: Tensor, radii: Tensor, s: GaussianRasterizationSettings) -> Tensor:
    """(N,4) tile ranges x0 y0 x1 y1 (end exclusive) of the 3-sigma boxes, clipped to the image."""
    grid = torch.tensor([(s.image_width + TILE - 1) // TILE, (s.image_height + TILE - 1) // TILE])
    low = ((centres - radii[:, None]) / TILE).trunc().clamp(-1e9, 1e9).long()
    high = ((centres + radii[:, None] + TILE - 1) / TILE).trunc().clamp(-1e9, 1e9).long()
    zero = torch.zeros_like(grid)
    return torch.cat([low.clamp(zero, grid), high.clamp(zero, grid)], 1)


def blend_tile(
    px: Tensor, centres: Tensor, conics: Tensor, opacities: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Blends n depth-ordered Gaussians into p pixels: features (p,C) (eqs. 1, 2) and transmittance (p,)."""
    d = centres[None] - px[:, None]  # (p,n,2)
    power = -0.5 * torch.einsum("pni,nij,pnj->pn", d, conics, d)
    raw = opacities * power.clamp(max=0).exp()
    alpha = raw + (raw.clamp(max=ALPHA_MAX) - raw).detach()
    alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0)
    after = torch.cumprod(1 - alpha, dim=1)  # (p,n) transmittance behind each
    # Decreasing along n: the Gaussian that would take a pixel below the minimum is left out, and all behind.
    counted = after >= TRANSMITTANCE_MIN
    alpha = torch.where(counted, alpha, 0)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    before = torch.where(counted, before, 0)
    final = torch.where(counted, 1 - alpha, 1).prod(1)
    return (alpha * before) @ features, final


def rasterize(
    means3D: Tensor,
    means2D: Tensor,
    opacities: Tensor,
    settings: GaussianRasterizationSettings,
    shs: Tensor | None = None,
    sh_objs: Tensor | None = None,
    colors_precomp: Tensor | None = None,
    scales: Tensor | None = None,
    rotations: Tensor | None = None,
    cov3D_precomp: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `GaussianRasterizer.forward` with `extra`: color, radii, objects, alpha (H,W), depth (H,W).

    `settings.identity_geometry_grad` is honoured: without it the identity channels are blended with detached
    weights.
    """
    s, n = settings, means3D.shape[0]
    view, proj = s.viewmatrix.to(means3D), s.projmatrix.to(means3D)
    size = torch.tensor([s.image_width, s.image_height], dtype=means3D.dtype)
    homogeneous = torch.cat([means3D, torch.ones_like(means3D[:, :1])], 1)  # (N,4)
    view_points = (homogeneous @ view)[:, :3]
    front = (view_points[:, 2] > NEAR).nonzero()[:, 0]
    hom = homogeneous[front] @ proj
    ndc = hom[:, :2] / (hom[:, 3:] + 1e-7) + means2D[front, :2]
    centres = ((ndc + 1) * size - 1) / 2  # pixels; pixel i has its centre at i

    if cov3D_precomp is not None:
        sigma = unpack_symmetric(cov3D_precomp)
    else:
        assert scales is not None and rotations is not None
        sigma = covariances_3d(scales, rotations, s.scale_modifier)
    cov = project_covariances(sigma[front], view_points[front], s)  # (F,2,2)
    det = cov[:, 0, 0] * cov[:, 1, 1] - cov[:, 0, 1] ** 2
    mid = (cov[:, 0, 0] + cov[:, 1, 1]) / 2
    radius = torch.ceil(3 * (mid + (mid * mid - det).clamp_min(0.1).sqrt()).sqrt()).detach()
    conics = (
        torch.stack([cov[:, 1, 1], -cov[:, 0, 1], -cov[:, 0, 1], cov[:, 0, 0]], -1).reshape(-1, 2, 2)
        / det[:, None, None]
    )
    boxes = tile_boxes(centres.detach(), radius, s)
    seen = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]) & (det > 0)
    radii = torch.zeros(n, dtype=torch.int32)
    radii[front[seen]] = radius[seen].int()

    if colors_precomp is not None:
        rgb = colors_precomp
    else:
        assert shs is not None
        rgb = sh_colors(means3D, shs, s)
    identity = means3D.new_zeros((n, 0)) if sh_objs is None else sh_objs.flatten(1)
    features = torch.cat([rgb, view_points[:, 2:], identity], 1)[front]  # (F,4+D)
    order = torch.argsort(view_points[front, 2], stable=True)
    order = order[seen[order]]

    image = _blend_image(
        s, boxes[order], centres[order], conics[order], opacities.reshape(-1)[front[order]], features[order]
    )
    color = image[:3] + image[-1] * s.bg.to(image)[:, None, None]
    return color, radii, image[4:-1], 1 - image[-1], image[3]


def _blend_image(
    s: GaussianRasterizationSettings,
    boxes: Tensor,
    centres: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
) -> Tensor:
    """(C+1,H,W): blended features, then the final transmittance, tile by tile; inputs nearest first."""
    rows = []
    for top in range(0, s.image_height, TILE):
        row = []
        for left in range(0, s.image_width, TILE):
            tx, ty = left // TILE, top // TILE
            inside = (boxes[:, 0] <= tx) & (tx < boxes[:, 2]) & (boxes[:, 1] <= ty) & (ty < boxes[:, 3])
            k = inside.nonzero()[:, 0]
            ys = torch.arange(top, min(top + TILE, s.image_height))
            xs = torch.arange(left, min(left + TILE, s.image_width))
            px = torch.stack([xs.repeat(len(ys)), ys.repeat_interleave(len(xs))], 1).to(centres)
            f = features[k]
            if not s.identity_geometry_grad:
                geometry = (centres[k].detach(), conics[k].detach(), opacities[k].detach())
                identity, _ = blend_tile(px, *geometry, f[:, 4:])
                blended, final = blend_tile(px, centres[k], conics[k], opacities[k], f[:, :4])
                blended = torch.cat([blended, identity], 1)
            else:
                blended, final = blend_tile(px, centres[k], conics[k], opacities[k], f)
            row.append(torch.cat([blended, final[:, None]], 1).T.reshape(-1, len(ys), len(xs)))
        rows.append(torch.cat(row, 2))
    return torch.cat(rows, 1)
