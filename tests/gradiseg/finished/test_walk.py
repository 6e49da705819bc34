"""The object that was clicked: two balls on a plate, one of another colour, one of the plate's."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gradiseg.finished.walk import Click, seeds, walk
from scene.gaussian_model import GaussianModel
from tests.labelled_scene import SIZE, camera
from utils.general import inverse_sigmoid
from utils.sh import RGB2SH

pytestmark = pytest.mark.usefixtures("one_thread")

RED, GREY = (0.8, 0.2, 0.2), (0.5, 0.5, 0.5)
PLATE, REDS, GREYS = 0, 1, 2
MIDDLES = {REDS: (0.0, -0.8, 0.45), GREYS: (0.0, 0.8, 0.45)}
RADIUS, SPACING = 0.5, 0.1
ABOVE = np.array([0.0, 0.0, 5.0])


def ball(middle: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Points (P, 3) on a ball, as far as it stands out of the plate, and their normals."""
    count = 300
    height = 1 - 2 * (torch.arange(count) + 0.5) / count
    angle = math.pi * (1 + 5**0.5) * torch.arange(count)
    around = (1 - height**2).sqrt()
    normal = torch.stack([around * angle.cos(), around * angle.sin(), height], 1)
    points = torch.tensor(middle) + RADIUS * normal
    return points[points[:, 2] > 0.02], normal[points[:, 2] > 0.02]


def still_life() -> tuple[GaussianModel, Tensor]:
    """Flat Gaussians on the surfaces of all three, and of which each is (N,)."""
    steps = torch.arange(-4, 4.01, SPACING)
    plate = torch.stack(
        [*torch.meshgrid(steps, steps, indexing="xy"), torch.zeros(len(steps), len(steps))], 2
    )
    plate = plate.flatten(0, 1)
    parts = [(plate, torch.tensor([0.0, 0.0, 1.0]).expand(len(plate), 3)), *map(ball, MIDDLES.values())]
    points, normals = (torch.cat(some) for some in zip(*parts, strict=True))
    part = torch.repeat_interleave(torch.arange(3), torch.tensor([len(some) for some, _ in parts]))
    x, y, z = normals.T
    colors = torch.tensor([GREY, RED, GREY])[part]
    model = GaussianModel(0)
    model.set_params(
        {
            "xyz": points,
            "f_dc": RGB2SH(colors)[:, None],
            "f_rest": torch.zeros(len(points), 0, 3),
            "opacity": inverse_sigmoid(torch.full((len(points), 1), 0.9)),
            "scaling": torch.log(torch.tensor([0.5, 0.5, 0.05]) * SPACING).repeat(len(points), 1),
            "rotation": torch.stack([1 + z, -y, x, torch.zeros_like(x)], 1),  # turns +z to the normal
            "obj_dc": torch.zeros(len(points), 1, 16),
        }
    )
    return model, part


def click(part: int, is_on: bool = True, index: int = 0) -> Click:
    """On the top of a ball, or on the plate between them."""
    point = np.array(MIDDLES[part]) + [0, 0, RADIUS] if part else np.zeros(3)
    view = camera(index)
    x, y, z = view.R.T @ point + view.T
    return Click(view, view.fx * x / z + view.cx, view.fy * y / z + view.cy, is_on)


@pytest.mark.parametrize(("part", "least"), [(REDS, 0.9), (GREYS, 0.7)])  # shape alone loses its foot
def test_one_click_finds_a_ball_by_its_colour_or_by_its_shape_alone(part: int, least: float) -> None:
    model, truth = still_life()
    found = walk(model, [click(part)], ABOVE)
    assert (found & (truth == part)).sum() / (found | (truth == part)).sum() > least
    assert torch.equal(found, walk(model, [click(part)], ABOVE))


def test_clicks_take_in_and_leave_out() -> None:
    model, truth = still_life()
    added = click(GREYS, index=1)
    both = walk(model, [click(REDS), added], ABOVE)
    assert both[truth == REDS].float().mean() > 0.9 and both[seeds(model, added)].all()
    assert both[truth == GREYS].sum() > 2 * len(seeds(model, added))
    one = walk(model, [click(REDS), added, click(GREYS, is_on=False)], ABOVE)
    assert one[truth == REDS].float().mean() > 0.9 and one[truth == GREYS].float().mean() < 0.1


def test_what_lies_along_the_border_or_outside_is_no_object() -> None:
    model, _ = still_life()
    found = walk(model, [click(PLATE)], ABOVE)
    x, y, _, inside = camera().project(model.get_xyz)
    border = (x < 2) | (y < 2) | (x > SIZE[0] - 2) | (y > SIZE[1] - 2)
    assert found.any() and not found[border | ~inside].any()


def test_a_click_is_what_colours_its_pixel() -> None:
    model, truth = still_life()
    found = seeds(model, click(REDS))
    top = torch.tensor(MIDDLES[REDS]) + torch.tensor([0, 0, RADIUS])
    assert len(found) and (truth[found] == REDS).all()
    assert (model.get_xyz[found] - top).norm(dim=1).max() < RADIUS
