"""Half resolution: camera, photograph and labels are those of exact blocks of 2x2 pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from scene.cameras import Camera
from scene.halving import halve_camera, halve_labels, halve_photograph
from utils.graphics import quaternion_to_matrix


def view(width: int, height: int) -> Camera:
    generator = torch.Generator().manual_seed(0)
    photograph = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    R = quaternion_to_matrix(np.array([0.9, 0.1, -0.3, 0.2]))
    return Camera(3, "v", width, height, 30.0, 31.0, 19.5, 12.5, R, np.array([0.1, -0.2, 0.5]), photograph)


def pixels(camera: Camera, points: Tensor) -> Tensor:
    """(N, 2) where world points (N, 3) fall, as the rasterizer counts: pixel centres are whole numbers."""
    clip = torch.cat([points, torch.ones(len(points), 1)], 1) @ camera.full_proj_transform
    size = torch.tensor([camera.image_width, camera.image_height])
    return ((clip[:, :2] / clip[:, 3:] + 1) * size - 1) / 2


@pytest.mark.parametrize("size", [(40, 26), (41, 27)])
def test_a_point_falls_into_the_block_that_its_pixel_is_of(size: tuple[int, int]) -> None:
    camera = view(*size)
    half = halve_camera(camera)
    assert (half.image_width, half.image_height) == (20, 13)
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)) + torch.tensor([0.0, 0.0, 6.0])
    centres = (pixels(camera, points) - 0.5) / 2  # of the pixels 2x and 2x + 1: 2x + 1/2
    torch.testing.assert_close(pixels(half, points), centres, rtol=1e-4, atol=1e-3)


def test_the_photograph_is_the_mean_of_blocks() -> None:
    camera = view(41, 27)
    image = camera.image_uint8
    half = halve_camera(camera).image_uint8
    assert image is not None and half is not None and half.dtype == torch.uint8
    blocks = image[:, :26, :40].double().reshape(3, 13, 2, 20, 2).mean((2, 4))
    assert (half.double() - blocks).abs().max() <= 0.5
    flat = torch.full((3, 4, 6), 200, dtype=torch.uint8)
    assert torch.equal(halve_photograph(flat), flat[:, :2, :3])


@pytest.mark.parametrize("block", ["1122", "1212", "1221", "1112", "2111", "1223", "1232", "1233", "1234"])
def test_labels_are_voted_by_blocks(block: str) -> None:
    votes = [int(digit) for digit in block]
    winner = max(votes, key=lambda vote: (votes.count(vote), -votes.index(vote)))
    labels = torch.tensor(votes, dtype=torch.int16).reshape(2, 2)
    assert halve_labels(labels).tolist() == [[winner]]
    wide = torch.cat([labels, torch.zeros(2, 1, dtype=torch.int16)], 1)  # an odd column is left out
    assert halve_labels(wide).tolist() == [[winner]]
    assert halve_labels(labels).dtype == torch.int16
