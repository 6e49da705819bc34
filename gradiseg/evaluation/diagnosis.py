"""Where the Gaussians with high identity gradients sit (the paper's figure 1), and how IGD would split them.

From a checkpoint inside IGD's window, whose accumulators hold the gradients since the last round. Distances
are in pixels of the view, from a Gaussian's projected centre to the nearest pixel with a neighbour of another
id.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from arguments import GradiSegParams
from gaussian_renderer import render
from gradiseg.igd import anomalous_gaussians, half_offset
from scene import gaussian_ops as ops
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from utils.image import to_uint8

ZOOM = 4  # small views are drawn larger, so that single Gaussians can be seen
HEAT_LIMIT = 1.5  # white is this many times the threshold
FAINT = 0.1  # Gaussians of a lower opacity are not drawn: nobody sees them


@dataclass(frozen=True)
class Anomalies:
    """Scores (N,), which of them IGD splits (N,) bool, and the halves' offset from the centre (N, 3)."""

    score: Tensor
    chosen: Tensor
    offset: Tensor


def anomalies(model: GaussianModel, options: GradiSegParams) -> Anomalies:
    """What IGD's next round sees."""
    score, chosen = anomalous_gaussians(model, options)
    gradient = ops.first_moment(model, "xyz")
    _, offset = half_offset(model.get_scaling.detach(), model.params["rotation"].detach(), gradient)
    return Anomalies(score, chosen, offset)


def pixels_of(points: Tensor, camera: Camera) -> NDArray[np.float64]:
    """Where points (N, 3) in front of the camera land: (N, 2) x, y in pixels, the image from 0 to W, H."""
    x, y, *_ = camera.project(points.detach())
    return torch.stack([x, y], 1).double().numpy()


def boundary_distance(ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance (H, W) of every pixel from the nearest one that has a neighbour of another id."""
    boundary = np.zeros(ids.shape, bool)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    boundary[:, 1:] |= across
    boundary[:, :-1] |= across
    boundary[1:] |= down
    boundary[:-1] |= down
    return distance_transform_edt(~boundary) if boundary.any() else np.full(ids.shape, np.inf)


@torch.no_grad()
def near_boundary(
    model: GaussianModel, found: Anomalies, camera: Camera, ids: NDArray[np.int64], reach: float
) -> tuple[int, int, int, int]:
    """Of the Gaussians that a view sees: how many within `reach` pixels of a boundary, how many in all; then
    the same of those chosen."""
    background = torch.zeros(3)
    visible = render(camera, model, bg_color=background)["visibility_filter"]
    places = pixels_of(model.get_xyz, camera)
    height, width = ids.shape
    inside = (places >= 0).all(1) & (places < (width, height)).all(1) & visible.numpy()
    columns, rows = places[inside].astype(int).T
    near = boundary_distance(ids)[rows, columns] <= reach
    chosen = found.chosen.numpy()[inside]
    return int(near.sum()), len(near), int(near[chosen].sum()), int(chosen.sum())


@torch.no_grad()
def picture(model: GaussianModel, found: Anomalies, camera: Camera, ids: NDArray[np.int64]) -> Image.Image:
    """A view in three panels: photograph with the boundaries of `ids`, gradients, the splits to come."""
    background = torch.zeros(3)
    limit = found.score[found.chosen].min() if found.chosen.any() else found.score.max()
    heat = (found.score / (HEAT_LIMIT * limit)).clamp(0, 1)[:, None]  # (N, 1) black, red, yellow, white
    colors = torch.cat([3 * heat, 3 * heat - 1, 3 * heat - 2], 1).clamp(0, 1)
    drawn = render(camera, model, bg_color=background, override_color=colors)
    photograph = camera.original_image.cpu()
    outlined = photograph.clone()
    outlined[:, torch.from_numpy(boundary_distance(ids) == 0)] = 1.0
    panels = [_zoomed(outlined), _zoomed(drawn["render"].clamp(0, 1)), _zoomed(0.4 * photograph)]
    shown = found.chosen & drawn["visibility_filter"] & (model.get_opacity[:, 0] > FAINT)
    ends = [pixels_of((model.get_xyz + sign * found.offset)[shown], camera) * ZOOM for sign in (-1, 1)]
    draw = ImageDraw.Draw(panels[2])
    for start, end in zip(*ends, strict=True):
        draw.line([*start, *end], fill="yellow")
        for x, y in (start, end):
            draw.ellipse([x - 1, y - 1, x + 1, y + 1], fill="red")
    sheet = Image.new("RGB", (sum(panel.width for panel in panels), panels[0].height))
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index * panel.width, 0))
    return sheet


def _zoomed(image: Tensor) -> Image.Image:
    pixels = Image.fromarray(to_uint8(image).permute(1, 2, 0).cpu().numpy())
    return pixels.resize((ZOOM * pixels.width, ZOOM * pixels.height), Image.Resampling.NEAREST)
