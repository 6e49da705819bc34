"""Camera matrices: where a point lands, and rotations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.graphics import (
    build_rotation,
    focal2fov,
    fov2focal,
    projection,
    quaternion_to_matrix,
    world_view,
)

lengths = st.floats(20.0, 2000.0)


@settings(max_examples=50, deadline=None)
@given(
    fx=lengths,
    fy=lengths,
    cx=lengths,
    cy=lengths,
    size=st.tuples(st.integers(16, 2000), st.integers(16, 2000)),
)
def test_points_land_where_colmap_sees_them(
    fx: float, fy: float, cx: float, cy: float, size: tuple[int, int]
) -> None:
    """pixel = ((ndc + 1) S - 1) / 2 of the rasterizer equals fx x/z + cx - 1/2, cx off the centre too."""
    width, height = size
    generator = np.random.default_rng(0)
    R = quaternion_to_matrix(generator.normal(size=4))
    T = generator.normal(size=3)
    in_camera = generator.uniform([-1, -1, 1], [1, 1, 5], (20, 3))
    in_world = (in_camera - T) @ R.T  # x_camera = R^T x_world + T

    matrix = world_view(R, T) @ projection(fx, fy, cx, cy, width, height, 0.01, 100.0)
    clip = np.c_[in_world, np.ones(20)] @ matrix.double().numpy()
    ndc = clip[:, :3] / clip[:, 3:]
    pixels = ((ndc[:, :2] + 1.0) * [width, height] - 1.0) / 2.0
    expected = in_camera[:, :2] / in_camera[:, 2:] * [fx, fy] + [cx - 0.5, cy - 0.5]
    np.testing.assert_allclose(pixels, expected, rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(clip[:, 3], in_camera[:, 2], rtol=1e-4)  # w is the depth
    assert ((ndc[:, 2] > 0) & (ndc[:, 2] < 1)).all()


def test_a_centred_camera_has_no_offset() -> None:
    matrix = projection(50, 50, 32, 24, 64, 48, 0.01, 100.0)
    assert matrix[2, 0] == 0 and matrix[2, 1] == 0
    assert matrix[0, 0] == pytest.approx(1 / math.tan(focal2fov(50, 64) / 2))


@given(focal=lengths, pixels=lengths)
def test_focal_and_field_of_view_invert_each_other(focal: float, pixels: float) -> None:
    assert fov2focal(focal2fov(focal, pixels), pixels) == pytest.approx(focal)


def test_rotations_are_orthogonal_and_ignore_the_length_of_the_quaternion() -> None:
    quaternions = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    R = build_rotation(quaternions)
    torch.testing.assert_close(R @ R.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(build_rotation(-3.0 * quaternions), R)


def test_a_quarter_turn_about_z() -> None:
    half = math.sqrt(0.5)
    R = build_rotation(torch.tensor([[half, 0.0, 0.0, half]]))[0]
    torch.testing.assert_close(R @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))


def test_a_quaternion_is_an_axis_and_an_angle() -> None:
    for quaternion in np.random.default_rng(0).normal(size=(50, 4)):
        R, (w, *axis) = quaternion_to_matrix(quaternion), quaternion / np.linalg.norm(quaternion)
        np.testing.assert_allclose(R @ axis, axis, atol=1e-12)
        assert np.trace(R) == pytest.approx(4 * w * w - 1)  # 1 + 2 cos(angle), cos(angle / 2) = w
