"""Rendering: a camera and a model in, the tensors of one view out."""

from collections.abc import Callable
from typing import Any

import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer
from fused_losses import TileCrossEntropy
from torch import Tensor

from scene.cameras import Camera
from scene.gaussian_model import GaussianModel

IdentityRenderer = Callable[[Camera], Tensor]  # camera -> identity map (16, H, W)

MAPS_PER_PASS = 64  # channels that the rasterizer blends at once


def render(
    viewpoint_camera: Camera,
    pc: GaussianModel,
    pipe: Any = None,
    bg_color: Tensor | None = None,
    scaling_modifier: float = 1.0,
    override_color: Tensor | None = None,
    identity_geometry_grad: bool = True,
    override_identity: Tensor | None = None,
    identity_loss: TileCrossEntropy | None = None,
) -> dict[str, Tensor]:
    """Render colour (eq. 1) and identity encodings (eq. 2) of one view.

    Args:
        pipe: Gaussian Grouping's third argument, taken and not used.
        bg_color: (3,) background, black by default; the identity map has none.
        override_color: (N,3) in place of the SH colours.
        identity_geometry_grad: whether the identity map's gradient reaches positions, shapes and opacities.
        override_identity: (N,D) in place of the identity encodings, D up to 64.
        identity_loss: takes the identity map tile by tile, on a CPU, before it would be written to memory.

    Returns:
        render (3,H,W); render_object (D,H,W); viewspace_points (N,3), whose gradient is that of the screen
        position in NDC; visibility_filter (N,) bool; radii (N,) pixels; identity_encodings (N,1,D), whose
        gradient is what the rendered identity map alone contributes to the encodings. With `identity_loss`
        the value of that, a scalar, and no render_object.
    """
    viewspace_points = torch.zeros_like(pc.get_xyz, requires_grad=True)
    identity = pc.get_objects if override_identity is None else override_identity
    identity_encodings = identity.view(-1, 1, identity.shape[-1])
    if identity_encodings.requires_grad:
        identity_encodings.retain_grad()
    background = pc.get_xyz.new_zeros(3) if bg_color is None else bg_color
    settings = settings_of(viewpoint_camera, pc, background, scaling_modifier, identity_geometry_grad)
    color, radii, objects = GaussianRasterizer(settings)(
        means3D=pc.get_xyz,
        means2D=viewspace_points,
        opacities=pc.get_opacity,
        shs=None if override_color is not None else (pc.params["f_dc"], pc.params["f_rest"]),
        sh_objs=identity_encodings,
        colors_precomp=override_color,
        scales=pc.get_scaling,
        rotations=pc.params["rotation"],  # of any length: the rasterizer normalises it for less
        epilogue=identity_loss,
    )
    identities = {"render_object": objects}
    if identity_loss is not None:
        identities = {"identity_loss": identity_loss.loss(objects)}
    return identities | {
        "render": color,
        "viewspace_points": viewspace_points,
        "visibility_filter": radii > 0,
        "radii": radii,
        "identity_encodings": identity_encodings,
    }


def settings_of(
    camera: Camera,
    model: GaussianModel,
    background: Tensor,
    scaling_modifier: float = 1.0,
    identity_geometry_grad: bool = True,
) -> GaussianRasterizationSettings:
    """What the rasterizer needs to know beside the Gaussians."""
    return GaussianRasterizationSettings(
        image_height=camera.image_height,
        image_width=camera.image_width,
        tanfovx=0.5 * camera.image_width / camera.fx,
        tanfovy=0.5 * camera.image_height / camera.fy,
        bg=background,
        scale_modifier=scaling_modifier,
        viewmatrix=camera.world_view_transform,
        projmatrix=camera.full_proj_transform,
        sh_degree=model.active_sh_degree,
        campos=camera.camera_center,
        identity_geometry_grad=identity_geometry_grad,
    )


@torch.no_grad()
def draw(
    camera: Camera, model: GaussianModel, bg_color: Tensor | None = None, channels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Colour (3,H,W) of a view, and up to 64 channels (N,L) of the Gaussians blended like it, (L,H,W).

    To look at: without gradients, and without identities unless they are the channels.
    """
    background = model.get_xyz.new_zeros(3) if bg_color is None else bg_color
    color, _, blended = GaussianRasterizer(settings_of(camera, model, background))(
        means3D=model.get_xyz,
        means2D=torch.zeros_like(model.get_xyz),
        opacities=model.get_opacity,
        shs=(model.params["f_dc"], model.params["f_rest"]),
        sh_objs=channels,
        scales=model.get_scaling,
        rotations=model.params["rotation"],
    )
    return color, blended


def contributions(camera: Camera, model: GaussianModel, maps: Tensor) -> Tensor:
    """What each Gaussian adds to a view, weighed by maps (L,H,W): sum over pixels of alpha T map, (N,L).

    With masks as maps: by how much it shows in each. Rendering is linear in the encodings, so that these
    sums are the gradient of rendered encodings; exact, and one pass for up to 64 maps.
    """
    parts = []
    for some in maps.split(MAPS_PER_PASS):
        channels = torch.zeros(model.num_gaussians, len(some), device=model.device, requires_grad=True)
        with torch.enable_grad():
            drawn = render(camera, model, override_identity=channels, identity_geometry_grad=False)
        parts.append(torch.autograd.grad(drawn["render_object"], channels, some.to(channels))[0])
    return torch.cat(parts, 1)


def draw_alone(camera: Camera, model: GaussianModel, rows: Tensor, channels: Tensor) -> Tensor:
    """Channels (R,L) of the Gaussians of `rows` (R,) blended as if there were no others, (L,H,W).

    A channel of ones gives the alpha that they accumulate. Gradients reach positions, shapes and opacities.
    """
    positions = model.get_xyz.index_select(0, rows)
    *_, blended = GaussianRasterizer(settings_of(camera, model, positions.new_zeros(3)))(
        means3D=positions,
        means2D=torch.zeros_like(positions),
        opacities=model.get_opacity.index_select(0, rows),
        sh_objs=channels[:, None],
        colors_precomp=torch.zeros_like(positions),
        scales=model.get_scaling.index_select(0, rows),
        rotations=model.params["rotation"].index_select(0, rows),
    )
    return blended


@torch.no_grad()
def surface(
    camera: Camera, model: GaussianModel, channels: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Accumulated alpha (H,W) of a view, the depth (H,W) of what it shows, and channels as in `draw`.

    Depth is sum alpha T z / sum alpha T along the camera's axis, in scene units; 0 where nothing is.
    """
    rasterizer = GaussianRasterizer(settings_of(camera, model, model.get_xyz.new_zeros(3)))
    *_, blended, alpha, depth = rasterizer(
        means3D=model.get_xyz,
        means2D=torch.zeros_like(model.get_xyz),
        opacities=model.get_opacity,
        sh_objs=channels,
        colors_precomp=torch.zeros_like(model.get_xyz),
        scales=model.get_scaling,
        rotations=model.params["rotation"],
        extra=True,
    )
    return alpha, depth / alpha.clamp_min(1e-6), blended
