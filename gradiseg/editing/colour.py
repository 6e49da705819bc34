"""Recolouring: affine maps of RGB, which are exact for every viewing direction.

A colour is 1/2 + sum_k c_k Y_k(d) (before the renderer's clamp at 0), so that M applied to every coefficient,
and an offset to the constant one, maps it by M everywhere.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from utils.sh import SH_C0

LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709


def hue_matrix(degrees: float) -> Tensor:
    """Rotation (3, 3) of RGB about the grey axis: greys stay, red becomes green at 120."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    grey = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / math.sqrt(3)
    return cosine * (torch.eye(3, dtype=torch.float64) - grey) + grey + sine * cross


def saturation_matrix(factor: float) -> Tensor:
    """Matrix (3, 3) that brings colours to the grey of their luminance (0), leaves them (1) or overdraws
    them.
    """
    grey = torch.tensor(LUMINANCE, dtype=torch.float64).expand(3, 3)
    return factor * torch.eye(3, dtype=torch.float64) + (1 - factor) * grey


def tint_matrix(colour: Tensor, params: Mapping[str, Tensor], strength: float) -> Tensor:
    """Matrix (3, 3) that gives the Gaussians a `colour` (3,) in [0,1], light and shade kept, by a share
    `strength`.

    A colour becomes `colour` times its luminance over the mean luminance of all, weighted by opacity.
    """
    weights = torch.tensor(LUMINANCE, dtype=torch.float64)
    colours = 0.5 + SH_C0 * params["f_dc"][:, 0].double().cpu()  # (N, 3)
    opacity = params["opacity"].double().cpu().sigmoid()
    mean = ((colours @ weights)[:, None] * opacity).sum() / opacity.sum().clamp_min(1e-12)
    painted = colour.double()[:, None] * weights / mean.clamp_min(1e-3)
    return strength * painted + (1 - strength) * torch.eye(3, dtype=torch.float64)


def recolour(params: Mapping[str, Tensor], matrix: Tensor, offset: Tensor) -> dict[str, Tensor]:
    """Gaussians whose colours c are `matrix` (3, 3) c + `offset` (3,)."""
    constant, rest = params["f_dc"].double(), params["f_rest"].double()
    matrix, offset = matrix.to(constant), offset.to(constant)
    shift = (matrix.sum(1) * 0.5 + offset - 0.5) / SH_C0
    return {
        **params,
        "f_dc": (constant @ matrix.T + shift).to(params["f_dc"]),
        "f_rest": (rest @ matrix.T).to(params["f_rest"]),
    }
