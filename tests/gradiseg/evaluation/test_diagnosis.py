"""Distances to boundaries, projected centres, and counts that can be told by hand."""

import numpy as np
import torch

from gradiseg.evaluation.diagnosis import Anomalies, boundary_distance, near_boundary, picture, pixels_of
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from tests.gaussians import random_params

WIDTH, HEIGHT, FOCAL = 40, 30, 30.0


def camera() -> Camera:
    """A camera at the origin that looks along z, with a principal point off the centre."""
    image = torch.full((3, HEIGHT, WIDTH), 128, dtype=torch.uint8)
    return Camera(0, "view", WIDTH, HEIGHT, FOCAL, FOCAL, 18.0, 16.0, np.eye(3), np.zeros(3), image)


def model_at(points: list[list[float]]) -> GaussianModel:
    """Small opaque Gaussians."""
    params = random_params(len(points))
    params |= {"xyz": torch.tensor(points), "scaling": torch.full((len(points), 3), -4.0)}
    model = GaussianModel(3)
    model.set_params(params | {"opacity": torch.full((len(points), 1), 3.0)})
    return model


def two_halves() -> np.ndarray:
    """Id 1 left of column 20, id 2 from there on."""
    return np.where(np.arange(WIDTH) < 20, 1, 2)[None].repeat(HEIGHT, 0)


def test_distance_is_zero_on_both_sides_of_a_boundary_and_grows_by_pixels() -> None:
    distance = boundary_distance(two_halves())
    assert distance[5, 17:24].tolist() == [2, 1, 0, 0, 1, 2, 3]
    assert np.isinf(boundary_distance(np.ones((3, 4), int))).all()


def test_centres_land_where_the_pinhole_camera_puts_them() -> None:
    points = torch.tensor([[0.0, 0.0, 2.0], [1.0, -0.5, 2.0]])
    assert np.allclose(pixels_of(points, camera()), np.array([[18, 16], [18 + 15, 16 - 7.5]]))


def test_counts_only_what_the_view_sees_and_tells_the_chosen_apart() -> None:
    depth = 2.0
    columns = [19.5, 22.5, 35.5, 500.0]  # on the boundary, two pixels from it, far from it, outside the image
    model = model_at([[(u - 18.0) / FOCAL * depth, 0.0, depth] for u in columns] + [[0.0, 0.0, -depth]])
    chosen = torch.tensor([True, False, True, True, True])
    found = Anomalies(torch.ones(5), chosen, torch.zeros(5, 3))
    assert near_boundary(model, found, camera(), two_halves(), reach=2.0) == (2, 3, 1, 2)
    sheet = picture(model, found, camera(), two_halves())
    assert sheet.size[0] == 3 * sheet.size[1] * WIDTH // HEIGHT
