"""What a file does not hold of a model, measured by reading it back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.sh import SH_C0


@dataclass(frozen=True)
class Losses:
    """The largest differences over all Gaussians, row by row, in what is drawn.

    centre: shift in scene units. scale: of standard deviations, relative. degrees: of rotation. opacity and
    colour: of 1. view_dependence: of SH coefficients above the constant one. degree, degree_left: of SH.
    identities: whether encodings were lost.
    """

    centre: float
    scale: float
    degrees: float
    opacity: float
    colour: float
    view_dependence: float
    degree: int
    degree_left: int
    identities: bool

    def __str__(self) -> str:
        """One line for people."""
        parts = [
            f"centres move by at most {self.centre:.2g}",
            f"sizes by {self.scale:.2%}",
            f"rotations by {self.degrees:.2g} degrees",
            f"opacities by {self.opacity:.2g}",
            f"colours by {self.colour:.2g}",
        ]
        if self.degree_left < self.degree:
            parts.append(f"SH of degree {self.degree} becomes {self.degree_left}")
        if self.identities:
            parts.append("no identity encodings")
        return ", ".join(parts)


def losses(params: Mapping[str, Tensor], back: Mapping[str, Tensor]) -> Losses:
    """What became of a model (parameters as in `GaussianModel.params`) in a file; `back` is what was read.

    Raises:
        ValueError: unequal numbers of Gaussians.
    """
    if len(params["xyz"]) != len(back["xyz"]):
        raise ValueError(f"{len(back['xyz'])} Gaussians were read of {len(params['xyz'])}")
    one, other = (
        {name: tensor.detach().cpu().double() for name, tensor in model.items()} for model in (params, back)
    )
    kept = min(one["f_rest"].shape[1], other["f_rest"].shape[1])
    return Losses(
        centre=_largest((one["xyz"] - other["xyz"]).norm(dim=1)),
        scale=_largest((other["scaling"] - one["scaling"]).expm1()),
        degrees=math.degrees(_largest(_turns(one["rotation"], other["rotation"]))),
        opacity=_largest(one["opacity"].sigmoid() - other["opacity"].sigmoid()),
        colour=_largest((one["f_dc"] - other["f_dc"]) * SH_C0),
        view_dependence=_largest(one["f_rest"][:, :kept] - other["f_rest"][:, :kept]),
        degree=math.isqrt(one["f_rest"].shape[1] + 1) - 1,
        degree_left=math.isqrt(other["f_rest"].shape[1] + 1) - 1,
        identities=bool(one["obj_dc"].any() and not other["obj_dc"].any()),
    )


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _turns(one: Tensor, other: Tensor) -> Tensor:
    """Angles (N,) in radians between rotations (N,4); a quaternion and its negative are the same."""
    one, other = (torch.nn.functional.normalize(turn) for turn in (one, other))
    chord = torch.minimum((one - other).norm(dim=1), (one + other).norm(dim=1))
    return 4 * torch.asin((chord / 2).clamp(max=1))
