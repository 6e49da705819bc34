"""Where objects are, by what the views show of them: Gaussians that reach out of their own object.

A Gaussian can belong to an object by all pixels that it colours and still hang half below the table on which
the object stands: nobody sees that half. Cut out, the object drags it along. What the views show of an object
is its surface; a Gaussian whose centre lies nowhere near is not cut out with it.

Every pixel is put back to its depth, as a point of the id that the model renders there. An id occupies the
voxels, `FOOTPRINTS` pixels wide at the median depth, that hold at least `FEWEST_POINTS` of its points, and
those beside them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussian_renderer import MAPS_PER_PASS, render, surface
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel

FOOTPRINTS = 2.0  # pixels
FEWEST_POINTS = 2
OPAQUE = 0.5  # accumulated alpha of a pixel that shows something
NEIGHBOURS = np.stack(np.meshgrid(*3 * [(-1, 0, 1)], indexing="ij"), -1).reshape(27, 3)

IntArray = NDArray[np.int64]


@torch.no_grad()
def centres_inside(model: GaussianModel, cameras: Sequence[Camera], ids: Tensor) -> Tensor:
    """Which Gaussians have their centre where the views show the id of each, `ids` (N,): (N,) bool."""
    present, label = ids.unique(return_inverse=True)
    views = [_points(camera, model, label, len(present)) for camera in cameras]
    points = np.concatenate([points for points, *_ in views])
    labels = np.concatenate([labels for _, labels, _ in views])
    footprints = np.concatenate([footprints for *_, footprints in views])
    if not len(points):
        return torch.zeros_like(ids, dtype=torch.bool)
    width = FOOTPRINTS * float(np.median(footprints))
    grid = _Grid(points, width)
    occupied, counts = np.unique(grid.keys(grid.cells(points), labels), return_counts=True)
    occupied = occupied[counts >= FEWEST_POINTS]
    cells = grid.cells(model.get_xyz.double().cpu().numpy())  # (N, 3)
    own = label.cpu().numpy()
    inside = np.zeros(len(own), bool)
    for step in NEIGHBOURS:
        inside |= np.isin(grid.keys(cells + step, own), occupied) & grid.holds(cells + step)
    return torch.from_numpy(inside).to(ids.device)


class _Grid:
    """Voxels of a width around points (P, 3); cells (..., 3) are int64."""

    def __init__(self, points: NDArray[np.float64], width: float) -> None:
        self.width = width
        self.low = np.floor(points.min(0) / width).astype(np.int64)
        self.size = np.floor(points.max(0) / width).astype(np.int64) - self.low + 1

    def cells(self, points: NDArray[np.float64]) -> IntArray:
        """The cell of every point."""
        cells: IntArray = np.floor(points / self.width).astype(np.int64) - self.low
        return cells

    def holds(self, cells: IntArray) -> NDArray[np.bool_]:
        """Whether each lies within the points' bounds; the keys of others mean nothing."""
        inside: NDArray[np.bool_] = ((cells >= 0) & (cells < self.size)).all(-1)
        return inside

    def keys(self, cells: IntArray, labels: IntArray) -> IntArray:
        """One number for every cell and label."""
        keys: IntArray = labels
        for axis in range(3):
            keys = keys * self.size[axis] + cells[..., axis]
        return keys


def _points(
    camera: Camera, model: GaussianModel, label: Tensor, count: int
) -> tuple[NDArray[np.float64], IntArray, NDArray[np.float64]]:
    """The opaque pixels of a view in the world (P, 3), their labels (P,) and widths in the world (P,)."""
    alpha, depth = surface(camera, model)
    shown = _rendered_labels(camera, model, label, count)
    rows, columns = (alpha > OPAQUE).nonzero().unbind(1)
    z = depth[rows, columns]
    x, y = (columns + 0.5 - camera.cx) / camera.fx * z, (rows + 0.5 - camera.cy) / camera.fy * z
    pose = camera.world_view_transform.to(z)  # points as row vectors
    world = (torch.stack([x, y, z], 1) - pose[3, :3]) @ pose[:3, :3].T
    arrays = world.double(), shown[rows, columns], (z / camera.fx).double()
    points, labels, widths = (array.cpu().numpy() for array in arrays)
    return points, labels, widths


def _rendered_labels(camera: Camera, model: GaussianModel, label: Tensor, count: int) -> Tensor:
    """The label with most mass in every pixel: (H, W) int64."""
    best = shown = torch.zeros(0)
    for first in range(0, count, MAPS_PER_PASS):
        labels = torch.arange(first, min(first + MAPS_PER_PASS, count), device=label.device)
        codes = (label[:, None] == labels).float()
        mass, winner = render(camera, model, override_identity=codes)["render_object"].max(0)
        if first == 0:
            best, shown = mass, winner
        shown = torch.where(mass > best, first + winner, shown)
        best = torch.maximum(best, mass)
    return shown
