"""Colours under rotation: how SH coefficients change when an object turns.

A Gaussian shows the colour f(d) = 1/2 + sum_k c_k Y_k(d) in direction d. Turned by R it shows f(R^-1 d).
Every band of the harmonics (1, 3, 5, 7 of them) is mapped to itself, by a matrix that the values at a few
directions determine.
"""

import numpy as np
import torch
from diff_gaussian_rasterization.reference import sh_basis
from torch import Tensor

DIRECTIONS = 64  # a band has at most 7 unknowns a column: many times as many keep the least squares exact


def _directions() -> Tensor:
    """Directions (DIRECTIONS, 3) spread evenly over the sphere, along a spiral."""
    index = torch.arange(DIRECTIONS, dtype=torch.float64) + 0.5
    height = 1 - 2 * index / DIRECTIONS
    angle = index * np.pi * (1 + 5**0.5)
    radius = (1 - height**2).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], 1)


def rotate_harmonics(rest: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients (N, K, 3) above the constant one, K = 0, 3, 8 or 15, of what is turned by `rotation` (3,
    3).
    """
    degree = round((rest.shape[1] + 1) ** 0.5) - 1
    here = _directions()
    before = sh_basis(degree, here @ rotation.to(here))  # rows are R^-1 d
    after = sh_basis(degree, here)
    turned, start = [], 0
    for band in range(1, degree + 1):
        columns = slice(band**2, band**2 + 2 * band + 1)
        matrix = torch.linalg.lstsq(
            after[:, columns], before[:, columns]
        ).solution  # (2 band + 1, 2 band + 1)
        part = rest[:, start : start + 2 * band + 1].double()
        turned.append(torch.einsum("ij,njc->nic", matrix.to(part.device), part))
        start += 2 * band + 1
    return torch.cat(turned, 1).to(rest) if turned else rest
