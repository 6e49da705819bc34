"""Degree-0 spherical harmonics: the constant part of a Gaussian's colour.

A colour c in [0,1] and its degree-0 coefficient k are tied by c = SH_C0 * k + 0.5 (3DGS keeps colours centred
at grey).
"""

from typing import TypeVar

import numpy as np
import torch

Colour = TypeVar("Colour", float, np.ndarray, torch.Tensor)

SH_C0 = 0.28209479177387814  # Y_00 = 1 / (2 sqrt(pi))


def RGB2SH(rgb: Colour) -> Colour:
    """Degree-0 coefficient of a colour in [0,1]."""
    return (rgb - 0.5) / SH_C0


def SH2RGB(sh: Colour) -> Colour:
    """Colour of a degree-0 coefficient; not clamped."""
    return sh * SH_C0 + 0.5
