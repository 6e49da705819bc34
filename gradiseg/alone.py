"""Objects alone: what one would show beyond its silhouette, if all else were gone, is drawn back.

A boundary step's codes (`gradiseg.boundary`) see what views see. The lower half of a Gaussian on the foot of
a mug hides below the table's surface: no pixel objects, and cut out it hangs below the mug. So a boundary
step also renders one object of its view *alone*. The loss is the alpha outside of the object's silhouette, in
the mean over the pixels. It reaches positions, shapes and opacities; where the picture needs a Gaussian, the
colour loss outweighs it.

Nobody gives the silhouette of what is half hidden, but the other views show the rest. Inside are the object's
own pixels, those without a label, and the hull of the voxels in which some view shows the object
(`gradiseg.occupancy`), hidden here or not. The hull, since the inside of it may be shown by none: the place
under what stands on a book. Voxels and owners are frozen between elections.

*Objects* are the labels that most views of them show whole, not cut off by the frame. A table is none: below
what stands on it nobody sees it, and it must be there when that is taken away. Nor is id 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussian_renderer import draw_alone
from gradiseg.classifier import UNLABELLED
from gradiseg.occupancy import shown_voxels
from gradiseg.votes import LabelsOf
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel

WEIGHT = 0.6  # of the loss of an object, times the objects that take turns in a view
SIDES = 16  # of the polygon that a hull is
MOST = 0.995  # of the voxels are inside: some may be errors
MARGIN = 1.0  # pixels


@dataclass(frozen=True)
class Object:
    """Of a label: its Gaussians' rows (R,), the middles (P, 3) of the voxels that show it, and their mean."""

    rows: Tensor
    points: Tensor
    middle: NDArray[np.float64]  # (3,): on the host, which need not wait for a device to know it

    @classmethod
    def of(cls, rows: Tensor, points: Tensor) -> "Object":
        """With the mean of the points."""
        return cls(rows, points, points.mean(0).double().cpu().numpy())


class AloneLoss:
    """The loss, with the objects of the last `renew`: none before.

    Attributes: `objects`, by dense label; `width` of the voxels; `in_view`, by a view's name: the labels of
    the objects that it shows; `turn`, how many there were, over all views: a run may see each a few times.
    """

    def __init__(self) -> None:
        self.objects: dict[int, Object] = {}
        self.width = 0.0
        self.in_view: dict[str, list[int]] = {}
        self.turn = 0

    @torch.no_grad()
    def renew(
        self,
        model: GaussianModel,
        cameras: Sequence[Camera],
        voters: Sequence[Camera],
        labels_of: LabelsOf,
        class_ids: Tensor,
        owners: Tensor,
    ) -> None:
        """Find the objects of `cameras`, and by what `voters` show, where they are.

        labels_of: camera -> dense labels (H, W), negative = none; class_ids: (K,), of the dense labels;
        owners: (N,) dense labels.
        """
        voxels = shown_voxels(model, voters, owners, class_ids.numel())
        middles = torch.from_numpy(voxels.centres).to(model.get_xyz)
        found = torch.from_numpy(voxels.labels).to(owners.device)
        self.width = voxels.width
        whole = shown_whole(cameras, labels_of)
        unlabelled = set((class_ids == UNLABELLED).nonzero().flatten().tolist())
        self.objects = {
            label: Object.of((owners == label).nonzero()[:, 0], middles[found == label])
            for label in sorted(set(found.tolist()) & whole.keys() - unlabelled)
            if 2 * sum(whole[label].values()) > len(whole[label])
        }
        self.in_view = {
            camera.image_name: [label for label in self.objects if camera.image_name in whole[label]]
            for camera in cameras
        }

    def __call__(self, model: GaussianModel, camera: Camera, labels: Tensor) -> Tensor:
        """The weighted loss of the object whose turn it is in a view with dense labels (H, W)."""
        present = self.in_view.get(camera.image_name)
        if not present:
            return model.get_xyz.new_zeros(())
        label = present[self.turn % len(present)]
        self.turn += 1
        rows = self.objects[label].rows
        alpha = draw_alone(camera, model, rows, model.get_xyz.new_ones(len(rows), 1))[0]
        outside = (labels >= 0) & (labels != label) & ~self.hull(camera, self.objects[label])
        return WEIGHT * len(present) * (alpha * outside).mean()

    @torch.no_grad()
    def hull(self, camera: Camera, shown: Object) -> Tensor:
        """The pixels (H, W) bool of a view inside the hull of the voxels that show the object, a polygon."""
        x, y, depth, _ = camera.project(shown.points)
        angles = torch.arange(SIDES, device=x.device) * (2 * math.pi / SIDES)
        across, down = angles.cos(), angles.sin()
        along = torch.where(depth > 0, x * across[:, None] + y * down[:, None], -math.inf)  # (SIDES, P)
        furthest = along.kthvalue(math.ceil(MOST * len(x)), dim=1).values
        middle = float(shown.middle @ camera.R[:, 2] + camera.T[2])  # its depth
        margin = MARGIN + (self.width * camera.fx / middle / 2 if middle > 0 else 0.0)
        columns = torch.arange(camera.image_width, device=x.device) + 0.5
        rows = torch.arange(camera.image_height, device=x.device)[:, None] + 0.5
        inside = columns.new_ones(camera.image_height, camera.image_width, dtype=torch.bool)
        for a, d, limit in zip(across, down, furthest + margin, strict=True):
            inside &= columns * a + rows * d <= limit
        return inside

    def state_dict(self) -> dict[str, Any]:
        """What going on needs."""
        objects = {label: (shown.rows, shown.points) for label, shown in self.objects.items()}
        return {"objects": objects, "width": self.width, "in_view": self.in_view, "turn": self.turn}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` gave."""
        parts = {
            label: (rows.to(device), points.to(device)) for label, (rows, points) in state["objects"].items()
        }
        self.objects = {label: Object.of(*tensors) for label, tensors in parts.items()}
        self.width, self.in_view, self.turn = state["width"], state["in_view"], state["turn"]


def shown_whole(cameras: Sequence[Camera], labels_of: LabelsOf) -> dict[int, dict[str, bool]]:
    """By dense label: the views that show it, and whether it touches no edge of the picture there."""
    views: dict[int, dict[str, bool]] = {}
    for camera in cameras:
        labels = labels_of(camera)
        edges = torch.cat([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        cut = set(edges.unique().tolist())
        for label in labels.unique().tolist():
            if label >= 0:
                views.setdefault(label, {})[camera.image_name] = label not in cut
    return views
