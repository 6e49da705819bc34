"""Clicked objects: Gaussians by masks of a network, id maps of several; the rest in test_prepare_masks.py"""

from itertools import permutations

import numpy as np
import pytest
import torch

from gaussian_renderer import render
from gradiseg.finished.clicks import chosen_by, lay
from gradiseg.finished.walk import Click
from scene.cameras import Camera
from tests import disc_scene
from utils.errors import UserError
from utils.image import to_uint8


def alike(image: np.ndarray, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A network that goes by colours."""
    column, row = points[labels][0].astype(int)
    mask: np.ndarray = np.abs(image.astype(int) - image[row, column]).sum(2) < 60
    return mask & (image.sum(2) > 60)


def view(name: str) -> Camera:
    """A view of the discs with its photograph."""
    x, y = disc_scene.VIEWS[name]
    size = (disc_scene.WIDTH, disc_scene.HEIGHT)
    lens = (disc_scene.FOCAL, disc_scene.FOCAL, disc_scene.CX, disc_scene.CY)
    pose = (np.eye(3), np.array([-x, -y, 0.0]))
    with torch.no_grad():
        drawn = render(Camera(0, name, *size, *lens, *pose), disc_scene.disc_model())["render"]
    return Camera(0, name, *size, *lens, *pose, to_uint8(drawn))


def test_masks_of_a_network_vote_for_the_gaussians_of_what_is_clicked(one_thread: None) -> None:
    model, red = disc_scene.disc_model(), disc_scene.DISCS["red disc"]
    truth = torch.arange(model.num_gaussians) < len(disc_scene.disc_points(red))
    cameras = [view(name) for name in disc_scene.VIEWS]
    clicks = [Click(cameras[0], *disc_scene.projected_centre(red, "view.0"))]
    found = chosen_by(alike, model, clicks, cameras[1:])
    assert not found[~truth].any() and found[truth].float().mean() > 0.9  # its rim blends into black
    with pytest.raises(UserError, match="nothing is cut out"):
        chosen_by(alike, model, [Click(cameras[0], 2.0, 2.0)], cameras)


def test_smaller_masks_lie_on_larger_ones_in_any_order() -> None:
    masks = np.zeros((3, 8, 8), bool)
    masks[0, 1:7, 1:7], masks[1, 2:5, 2:5], masks[2, 4:8, 4:6] = True, True, True  # 36, 9 and 8 pixels
    expected = np.zeros((8, 8), np.uint16)
    for id in (1, 2, 3):
        expected[masks[id - 1]] = id
    for order in permutations((1, 2, 3)):
        ids = np.zeros((8, 8), np.uint16)
        areas: dict[int, int] = {}
        for id in order:
            lay(ids, areas, masks[id - 1], id)
        np.testing.assert_array_equal(ids, expected)
        assert areas == {1: 36, 2: 9, 3: 8}
