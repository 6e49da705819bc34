"""Overreach: what of a Gaussian hides behind another object's surface is drawn back.

A boundary step sees what views see. The lower half of a Gaussian on the foot of a mug hides below the table's
surface; no pixel objects, and cut out it hangs below the mug. But views show where objects are
(`gradiseg.occupancy`). The *ends* of a Gaussian lie `ENDS` standard deviations out along its axes. One
overreaches where the nearest voxel that views show is another object's, and the nearest of its own object
further than `TOLERANCE` voxels. Its loss is the rest of that way over the Gaussian's own deviation along the
axis, `WEIGHT` times the sum over N: linear, so that what is far out does not decide everything. It is known
to the positions, shapes and nothing else; where the picture needs a Gaussian, the colour loss outweighs it.

Voxels are frozen between elections, as owners are (`gradiseg.boundary`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from simple_knn import knn
from torch import Tensor

from gradiseg.classifier import UNLABELLED
from gradiseg.occupancy import shown_voxels
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from utils.graphics import build_rotation

ENDS = 2.0  # standard deviations
TOLERANCE = 2.0  # voxels, as wide as two pixels at the median depth
WEIGHT = 0.1


class OverreachLoss:
    """The loss, with the ends that overreached when `renew` was called last: none before.

    Attributes, for E ends: `rows` (E,) int64, their Gaussians; `ends` (E,) int64, which of the six; `targets`
    (E, 3), the points of their own objects nearest to them; `tolerance`, a length.
    """

    def __init__(self) -> None:
        self.rows = self.ends = torch.zeros(0, dtype=torch.int64)
        self.targets = torch.zeros(0, 3)
        self.tolerance = 0.0

    @torch.no_grad()
    def renew(self, model: GaussianModel, cameras: Sequence[Camera], ids: Tensor) -> None:
        """Find the ends that overreach, of Gaussians with the owners `ids` (N,); id 0 is no object."""
        present, label = ids.unique(return_inverse=True)
        voxels = shown_voxels(model, cameras, label, len(present))
        self.tolerance = TOLERANCE * voxels.width
        centres = torch.from_numpy(voxels.centres).to(model.get_xyz)  # (P, 3)
        shown = torch.from_numpy(voxels.labels).to(label.device)  # (P,)
        everyone = torch.arange(model.num_gaussians, device=label.device)
        ends = torch.stack([_ends(model, everyone, everyone.new_tensor(end)) for end in range(6)], 1)
        targets = torch.full_like(ends, torch.nan)  # (N, 6, 3)
        if len(centres):
            nearest = shown[knn(centres, ends.flatten(0, 1), 1)[0][:, 0]].view(ends.shape[:2])
            abroad = (nearest != label[:, None]) & (ids != UNLABELLED)[:, None]  # (N, 6)
            for number in range(len(present)):
                own, asked = centres[shown == number], abroad & (label == number)[:, None]
                if len(own) and asked.any():
                    targets[asked] = own[knn(own, ends[asked], 1)[0][:, 0]]
        far = (ends - targets).norm(dim=2) > self.tolerance  # not where a target is NaN
        self.rows, self.ends = far.nonzero().unbind(1)
        self.targets = targets[far]

    def __call__(self, model: GaussianModel) -> Tensor:
        """The weighted loss."""
        deviation = model.get_scaling.detach()[self.rows, self.ends % 3]
        beyond = (_ends(model, self.rows, self.ends) - self.targets).norm(dim=1) - self.tolerance
        steepest = self.tolerance / 4  # a needle's own deviation may be next to nothing
        return WEIGHT * (beyond.relu() / deviation.clamp_min(steepest)).sum() / model.num_gaussians

    def state_dict(self) -> dict[str, Any]:
        """What going on needs."""
        return {"rows": self.rows, "ends": self.ends, "targets": self.targets, "tolerance": self.tolerance}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` gave."""
        self.rows, self.ends, self.targets = (state[name].to(device) for name in ("rows", "ends", "targets"))
        self.tolerance = state["tolerance"]


def _ends(model: GaussianModel, rows: Tensor, ends: Tensor) -> Tensor:
    """(R, 3): an end of each Gaussian of `rows` (R,); of the six the three positive ones come first."""
    axis, sign = (ends % 3).expand_as(rows), 1 - 2 * (ends // 3)
    rotation = build_rotation(model.params["rotation"][rows])  # (R, 3, 3), an axis a column
    direction = rotation[torch.arange(len(rows), device=rows.device), :, axis]
    return model.get_xyz[rows] + (ENDS * sign * model.get_scaling[rows, axis])[:, None] * direction
