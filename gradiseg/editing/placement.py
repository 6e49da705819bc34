"""Where an object stands: its box, its foot, and which way is up.

Strays are kept out by quantiles: a few specks of an object's id far away must not move it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene.cameras import Camera
from utils.errors import UserError

STRAYS = 0.02  # share of an object's Gaussians on either side of every axis that its box leaves out


@dataclass(frozen=True)
class Box:
    """An axis-parallel box: corners (3,) in the scene's frame."""

    low: Tensor
    high: Tensor

    @property
    def centre(self) -> Tensor:
        """(3,)."""
        return (self.low + self.high) / 2

    @property
    def size(self) -> Tensor:
        """Edges (3,)."""
        return self.high - self.low


def box_of(points: Tensor) -> Box:
    """The box of points (N, 3), strays left out.

    Raises: ValueError for no points.
    """
    if not len(points):
        raise ValueError("no points, no box")
    ordered = points.double().sort(0).values
    first = int(STRAYS * (len(points) - 1))
    return Box(ordered[first], ordered[len(points) - 1 - first])


def up_of(cameras: Iterable[Camera]) -> Tensor:
    """Unit vector (3,) that points up in the scene, if photographs were taken upright: the mean of the
    cameras' up.

    Raises: UserError where there is no camera, or their ups cancel out.
    """
    ups = [-torch.from_numpy(camera.R[:, 1]).double() for camera in cameras]  # image y points down
    mean = torch.stack(ups).mean(0) if ups else torch.zeros(3, dtype=torch.float64)
    if mean.norm() < 0.1:
        raise UserError('up: the cameras do not tell which way is up. Give it: "up": [x, y, z].')
    return mean / mean.norm()


def foot_of(points: Tensor, up: Tensor) -> Tensor:
    """The point (3,) that an object of points (N, 3) stands on: below the middle of it, at its lowest end."""
    up = up.double() / up.double().norm()
    points = points.double()
    height = points @ up  # (N,)
    lowest = height.sort().values[int(STRAYS * (len(points) - 1))]
    flat = points - height[:, None] * up  # (N, 3) in the plane through the origin
    side = torch.linalg.svd(up[None]).Vh[1:]  # (2, 3): two axes of that plane
    middle = box_of(flat @ side.T).centre  # (2,)
    return middle @ side + lowest * up
