"""Moving Gaussians as one rigid body, with a common scale: positions, shapes and view-dependent colours.

A motion takes x to scale R (x - pivot) + pivot + translation, in the scene's frame and units.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradiseg.editing.harmonics import rotate_harmonics
from utils.graphics import build_rotation

Vector = Sequence[float]


@dataclass(frozen=True)
class Motion:
    """Turn by `degrees` about `axis` (3,) through `pivot` (3,), scale about it, then translate (3,)."""

    pivot: Vector = (0.0, 0.0, 0.0)
    axis: Vector = (0.0, 0.0, 1.0)
    degrees: float = 0.0
    scale: float = 1.0
    translation: Vector = (0.0, 0.0, 0.0)

    @property
    def quaternion(self) -> Tensor:
        """The rotation as (4,) w x y z, float64."""
        axis = torch.tensor(self.axis, dtype=torch.float64)
        half = math.radians(self.degrees) / 2
        cosine = torch.tensor([math.cos(half)], dtype=torch.float64)
        return torch.cat([cosine, math.sin(half) * axis / axis.norm()])

    @property
    def rotation(self) -> Tensor:
        """The rotation as (3, 3), float64."""
        return build_rotation(self.quaternion[None])[0]

    def moved(self, points: Tensor) -> Tensor:
        """Points (N, 3), moved."""
        pivot = torch.tensor(self.pivot, dtype=torch.float64, device=points.device)
        shift = torch.tensor(self.translation, dtype=torch.float64, device=points.device)
        turned = (points.double() - pivot) @ self.rotation.T.to(points.device)
        return (self.scale * turned + pivot + shift).to(points)


def move(params: Mapping[str, Tensor], motion: Motion) -> dict[str, Tensor]:
    """Gaussians (as in `GaussianModel.params`), moved."""
    moved = dict(params)
    moved["xyz"] = motion.moved(params["xyz"])
    if motion.scale != 1.0:
        moved["scaling"] = params["scaling"] + math.log(motion.scale)
    if motion.degrees % 360:
        moved["rotation"] = quaternion_product(motion.quaternion, params["rotation"])
        moved["f_rest"] = rotate_harmonics(params["f_rest"], motion.rotation)
    return moved


def quaternion_product(first: Tensor, second: Tensor) -> Tensor:
    """first (4,) times second (N, 4): the rotation `second`, then `first`; in the dtype of `second`."""
    w, x, y, z = first.to(second.device, torch.float64)
    matrix = torch.stack(
        [
            torch.stack([w, -x, -y, -z]),
            torch.stack([x, w, -z, y]),
            torch.stack([y, z, w, -x]),
            torch.stack([z, -y, x, w]),
        ]
    )
    return (second.double() @ matrix.T).to(second)
