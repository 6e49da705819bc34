"""Centres near what the views show of an object are inside, others are not."""

import pytest
import torch

from gaussian_renderer import MAPS_PER_PASS
from gradiseg.occupancy import centres_inside
from tests.disc_scene import DEPTH, DISCS, VIEWS, disc_model
from tests.gradiseg.test_votes import camera_of

pytestmark = pytest.mark.usefixtures("one_thread")
CAMERAS = [camera_of(view) for view in VIEWS]


def test_the_gaussians_of_a_surface_are_inside() -> None:
    model = disc_model()
    assert centres_inside(model, CAMERAS, model.get_objects[:, 0].argmax(1)).float().mean() > 0.99


def test_what_hangs_behind_a_surface_or_lies_on_another_object_is_not() -> None:
    model = disc_model()
    ids = model.get_objects[:, 0].argmax(1)
    red, blue = ((ids == disc.identity).nonzero()[:, 0] for disc in DISCS.values())
    behind, astray = red[100:110], blue[100:110]
    with torch.no_grad():
        model.params["xyz"][behind, 2] = DEPTH + 0.5
        model.params["xyz"][astray] = model.params["xyz"][red[200:210]] + torch.tensor([0.0, 0.0, 0.01])
    inside = centres_inside(model, CAMERAS, ids)
    assert not inside[behind].any() and not inside[astray].any()
    others = torch.ones_like(inside)
    others[behind] = others[astray] = False
    assert inside[others].float().mean() > 0.99


def test_one_id_and_more_ids_than_fit_in_a_pass() -> None:
    model = disc_model()
    assert centres_inside(model, CAMERAS, torch.full((model.num_gaussians,), 4)).float().mean() > 0.99
    ids = torch.arange(model.num_gaussians) % 100  # each id everywhere, but seldom the first in a pixel
    assert centres_inside(model, CAMERAS[:2], ids)[ids >= MAPS_PER_PASS].any()


def test_nothing_to_see_is_nothing_inside() -> None:
    model = disc_model()
    with torch.no_grad():
        model.params["xyz"][:, 2] = -5.0
    assert not centres_inside(model, CAMERAS, model.get_objects[:, 0].argmax(1)).any()
