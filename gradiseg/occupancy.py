"""Where objects are, by what the views show of them: Gaussians that reach out of their own object.

A Gaussian can belong to an object by all pixels that it colours and still hang half below the table on which
the object stands: nobody sees that half. Cut out, the object drags it along. What the views show of an object
is its surface; a Gaussian whose centre lies nowhere near is not cut out with it.

Every pixel is put back to its depth, as a point of the id that the model renders there. An id occupies the
voxels, `FOOTPRINTS` pixels wide at the median depth, that hold at least `FEWEST_POINTS` of its points, and
those beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussian_renderer import MAPS_PER_PASS, surface
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel

FOOTPRINTS = 2.0  # pixels
FEWEST_POINTS = 2
OPAQUE = 0.5  # accumulated alpha of a pixel that shows something
NEIGHBOURS = np.stack(np.meshgrid(*3 * [(-1, 0, 1)], indexing="ij"), -1).reshape(27, 3)

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Voxels:
    """Cubes in which views show a label: cells (P, 3) and labels (P,) int64, and the width of all.

    Cell (0, 0, 0) begins at the world's origin. A cube may be of several labels, once for each.
    """

    cells: IntArray
    labels: IntArray
    width: float

    @property
    def centres(self) -> NDArray[np.float64]:
        """Their middles in the world (P, 3)."""
        return ((self.cells + 0.5) * self.width).astype(np.float64)

    def holds(self, points: NDArray[np.float64], labels: IntArray) -> NDArray[np.bool_]:
        """Which points (M, 3) lie in a cube of their label (M,), or beside one."""
        inside = np.zeros(len(points), bool)
        if not len(self.cells):
            return inside
        low, size = self.cells.min(0) - 1, np.ptp(self.cells, 0) + 3
        own = _keys(self.cells - low, self.labels, size)
        cells = _cells(points, self.width) - low
        for step in NEIGHBOURS:
            beside = cells + step
            within = ((beside >= 0) & (beside < size)).all(1)
            inside |= np.isin(_keys(beside, labels, size), own) & within
        return inside


@torch.no_grad()
def shown_voxels(model: GaussianModel, cameras: Sequence[Camera], label: Tensor, count: int) -> Voxels:
    """What the views show of the labels 0 to `count` - 1 of a model's Gaussians, `label` (N,)."""
    views = [_points(camera, model, label, count) for camera in cameras]
    labels = np.concatenate([labels for _, labels, _ in views]).astype(np.int64)
    if not len(labels):
        return Voxels(np.zeros((0, 3), np.int64), labels, 1.0)
    widths = np.concatenate([widths for *_, widths in views]).astype(np.float64)
    width = FOOTPRINTS * float(np.median(widths))
    cells = np.concatenate([_cells(points, width).astype(np.int32) for points, *_ in views])
    keys = _keys(cells - cells.min(0), labels, np.ptp(cells, 0) + 1)
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    occupied = first[counts >= FEWEST_POINTS]
    return Voxels(cells[occupied].astype(np.int64), labels[occupied], width)


def centres_inside(model: GaussianModel, cameras: Sequence[Camera], ids: Tensor) -> Tensor:
    """Which Gaussians have their centre where the views show the id of each, `ids` (N,): (N,) bool."""
    present, label = ids.unique(return_inverse=True)
    voxels = shown_voxels(model, cameras, label, len(present))
    centres = model.get_xyz.detach().double().cpu().numpy()  # (N, 3)
    return torch.from_numpy(voxels.holds(centres, label.cpu().numpy())).to(ids.device)


def _cells(points: NDArray[Any], width: float) -> IntArray:
    cells: IntArray = np.floor(points.astype(np.float64) / width).astype(np.int64)
    return cells


def _keys(cells: IntArray, labels: IntArray, size: IntArray) -> IntArray:
    """One number for every label and cell (P, 3) from 0 to below `size` (3,)."""
    keys: IntArray = labels
    for axis in range(3):
        keys = keys * size[axis] + cells[:, axis]
    return keys


def _points(
    camera: Camera, model: GaussianModel, label: Tensor, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """The opaque pixels of a view in the world (P, 3), their labels (P,) and widths in the world (P,).

    In 4 bytes a number: those of all views are in memory together.
    """
    alpha, depth, shown = _shown(camera, model, label, count)
    rows, columns = (alpha > OPAQUE).nonzero().unbind(1)
    z = depth[rows, columns]
    world = camera.unproject(columns + 0.5, rows + 0.5, z)
    arrays = world, shown[rows, columns].int(), z / camera.fx
    points, labels, widths = (array.cpu().numpy() for array in arrays)
    return points, labels, widths


def _shown(camera: Camera, model: GaussianModel, label: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Alpha, depth and the label with most mass of every pixel of a view: (H, W) each."""
    alpha = depth = best = shown = torch.zeros(0)
    for first in range(0, count, MAPS_PER_PASS):
        labels = torch.arange(first, min(first + MAPS_PER_PASS, count), device=label.device)
        alpha, depth, blended = surface(camera, model, (label[:, None] == labels).float())
        mass, winner = blended.max(0)
        if first == 0:
            best, shown = mass, winner
        shown = torch.where(mass > best, first + winner, shown)
        best = torch.maximum(best, mass)
    return alpha, depth, shown
