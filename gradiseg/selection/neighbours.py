"""Selections that grow into their neighbours or shrink away from what is not selected."""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor


def grow(points: Tensor, chosen: Tensor, radius: float) -> Tensor:
    """The selection (N,) bool, and every Gaussian whose centre (N, 3) lies within `radius` (scene units) of
    it.
    """
    return chosen | _near(points, chosen, radius)


def shrink(points: Tensor, chosen: Tensor, radius: float) -> Tensor:
    """The selection without those that have a Gaussian outside of it within `radius` (scene units)."""
    return chosen & ~_near(points, ~chosen, radius)


def _near(points: Tensor, others: Tensor, radius: float) -> Tensor:
    """Which points (N, 3) have one of `others` (N,) bool within `radius`."""
    positions = points.detach().cpu().double().numpy()
    if not bool(others.any()):
        return torch.zeros_like(others)
    distance, _ = cKDTree(positions[others.cpu().numpy()]).query(
        positions, distance_upper_bound=radius * (1 + 1e-12)
    )
    return torch.from_numpy(np.isfinite(distance) & (distance <= radius)).to(others.device)
