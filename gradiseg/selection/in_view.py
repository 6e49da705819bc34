"""Selections made in a picture: the id under a click, what shows in a region, what lies behind it."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gaussian_renderer import contributions, render
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera

SHOWN_SHARE = 0.5  # of what a Gaussian adds to the picture: so much must lie in the region


@torch.no_grad()
def id_at(model: LabelledModel, camera: Camera, x: float, y: float) -> int:
    """The id that shows at pixel (x, y) of a view, counted from its upper left corner.

    Raises: ValueError outside of the picture.
    """
    column, row = int(x), int(y)
    if not (0 <= column < camera.image_width and 0 <= row < camera.image_height):
        raise ValueError(
            f"({x:g}, {y:g}) is outside of a picture of {camera.image_width}x{camera.image_height}"
        )
    encoding = render(camera, model.model())["render_object"][:, row, column]  # (16,)
    return int((model.weight @ encoding + model.bias).argmax())


def polygon(camera: Camera, corners: Sequence[tuple[float, float]]) -> Tensor:
    """Pixels (H, W) bool inside a polygon of (x, y)."""
    canvas = Image.new("1", (camera.image_width, camera.image_height))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in corners], fill=1, outline=1)
    return torch.from_numpy(np.array(canvas, dtype=bool))


def shown_in(model: LabelledModel, camera: Camera, region: Tensor) -> Tensor:
    """Gaussians (N,) bool that add more of their light inside of `region` (H, W) bool than outside: the
    surface.
    """
    shares = contributions(camera, model.model(), torch.stack([region, torch.ones_like(region)]))  # (N, 2)
    return (shares[:, 1] > 0) & (shares[:, 0] > SHOWN_SHARE * shares[:, 1])


def behind(model: LabelledModel, camera: Camera, region: Tensor) -> Tensor:
    """Gaussians (N,) bool whose centres lie behind `region` (H, W) bool, whatever stands before them."""
    x, y, _, inside = camera.project(model.params["xyz"])
    chosen = inside.clone()
    chosen[inside] = region.to(inside.device)[y[inside].long(), x[inside].long()]
    return chosen
