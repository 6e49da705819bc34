"""The convex hull of an object's Gaussians: what the cameras never saw of it lies inside.

Supervision only reaches what the cameras see, so the inside of an object carries no reliable id; the hull of
the Gaussians that were selected fills it in. Strays are left out of it: one would inflate it.
"""

import enum

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

FENCE_FACTOR = 1.0  # points beyond the quartiles by more than this many interquartile ranges are stray
POINTS_PER_CHUNK = 65_536  # that are compared with all planes of the hull at once


class HullRule(enum.Enum):
    """What the convex hull of an object adds to its selection."""

    NONE = "none"
    SPARE = "spare"  # everything inside but other objects' confident Gaussians
    ALL = "all"  # everything inside


def inside_hull(points: Tensor, members: Tensor) -> Tensor | None:
    """Which points (N, 3) lie in the convex hull of the members (N,) bool, strays left out.

    None where the remaining members span no volume (fewer than four, or all in one plane).
    """
    everything = points.detach().cpu().double().numpy()
    core = without_strays(everything[members.cpu().numpy()])
    if len(core) < 4:
        return None
    try:
        planes = ConvexHull(core).equations  # (F, 4): outward normal and offset
    except QhullError:
        return None
    inside = np.all((everything >= core.min(0)) & (everything <= core.max(0)), axis=1)
    candidates = np.flatnonzero(inside)
    tolerance = 1e-9 * float(np.ptp(core, axis=0).max())  # the hull's own vertices are inside
    for chunk in np.array_split(candidates, max(1, len(candidates) // POINTS_PER_CHUNK)):
        heights = everything[chunk] @ planes[:, :3].T + planes[:, 3]  # (P, F)
        inside[chunk] = (heights <= tolerance).all(1)
    return torch.from_numpy(inside).to(points.device)


def without_strays(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points (N, 3) within the quartiles widened by `FENCE_FACTOR` interquartile ranges on every axis."""
    if not len(points):
        return points
    low, high = np.percentile(points, [25, 75], axis=0)
    reach = FENCE_FACTOR * (high - low)
    return points[np.all((points >= low - reach) & (points <= high + reach), axis=1)]
