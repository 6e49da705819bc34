"""A finished splat gets identities: the votes of its pixels, then sharper boundaries.

1. The masks vote (`gradiseg.votes`); every Gaussian takes the code of its owner (`gradiseg.finished.codes`).
   Id 0 is a gap of the masks as often as a region of the scene, so that its votes count less.
2. Several ids of one object are joined, as in training (`gradiseg.repair`), and the masks vote again. Labels
   that the votes contradict stay: votes have weighed them already, and repaired by them, they are worse.
3. Masks catch thin objects in part, and what they leave votes for the table. So a vote counts 1 / confidence,
   the share of its label's pixels that show the label once all have voted, and the masks vote once more. In
   rendered masks, the label's share of a pixel counts as much.
4. Refinement: rounds of boundary steps (`gradiseg.boundary`) beside the colour loss, votes after each. Where
   something thin shares its Gaussians with the table, its pixels have no majority yet. So they count as soon
   as its label has confidence^4 of the largest share: most of it where masks catch an object whole.
"""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from fused_losses import Adam, l1_ssim
from torch import Tensor, nn

from gaussian_renderer import render
from gradiseg.boundary import BoundaryLoss
from gradiseg.classifier import UNLABELLED
from gradiseg.finished.codes import codes_of, matching_classifier, weigh_rows
from gradiseg.repair.labels import TrainingLabels
from gradiseg.votes import Votes, lead, save_votes
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.run_folder import CLASSIFIER, POINT_CLOUD, VOTES
from utils.errors import UserError
from utils.files import atomic_folder

WEIGHT_OF_UNLABELLED = 0.3  # of a vote for id 0; FlashSplat raises its background likewise
BOUNDARY_WEIGHT = 0.5  # all that is wrong is to be mended in a few hundred steps
SUFFICIENT = -4.0  # power of a label's weight: the share of a majority from which its pixels count
LAMBDA_DSSIM = 0.2  # as 3DGS trains
# Learning rates: positions per scene extent; 3DGS's last one for positions, a part of its own for others.
# That of view dependence is four times 3DGS's: it gives back what boundary steps take from the picture.
RATES = {
    "xyz": 8e-5,
    "f_dc": 0.0025,
    "f_rest": 0.0005,
    "opacity": 0.02,
    "scaling": 0.004,
    "rotation": 0.001,
}
LAST_PACE = 0.3  # of the last round, which lets the picture settle

Told = Callable[[], None]  # told after every step; may raise to stop


class Segmentation:
    """A splat and the views that see it.

    Args:
        model: the splat; its identity encodings are replaced, and refinement moves the rest.
        cameras: views with photographs, some with masks of `ids`.
        extent: length scale of the scene, as `Scene.cameras_extent`.

    Attributes: `votes`, whose each Gaussian is.
    Raises: UserError where no view has a mask, or an id is not below `num_classes`.
    """

    def __init__(
        self,
        model: GaussianModel,
        cameras: Sequence[Camera],
        ids: Sequence[int],
        num_classes: int,
        background: Tensor,
        extent: float,
    ) -> None:
        self.model, self.background, self.extent = model, background, extent
        self.cameras = [camera for camera in cameras if camera.is_masked]
        if not self.cameras:
            raise UserError("no view has a mask: nothing can vote. Name their folder by --object_path.")
        self.classifier = matching_classifier(torch.tensor(ids), num_classes).to(model.device)
        self.labels = TrainingLabels(self.classifier)
        self.codes = codes_of(self.classifier)  # (K, 16)
        self.boundary = BoundaryLoss(BOUNDARY_WEIGHT)
        self.weights = self._with_unlabelled(torch.ones(len(self.codes), device=model.device))
        self.votes = self.vote()

    @torch.no_grad()
    def vote(self) -> Votes:
        """The owners by the labels as they are now; encodings become their codes, id 0 owns the unseen."""
        ids = self.classifier.class_ids
        votes = lead(self.model, self.cameras, self.labels, ids, self.weights)
        codes = self.codes[torch.searchsorted(ids, votes.ids)]
        self.model.params["obj_dc"] = nn.Parameter(codes[:, None].contiguous())
        self.votes = votes
        return votes

    def join_aliases(self) -> int:
        """Join the ids that are of one object (`TrainingLabels.repair`) and vote again; how many were."""
        changed = self.labels.repair(self.cameras, self.render_identity, margin=math.inf)
        if changed["aliases"]:
            self.vote()
        return int(changed["aliases"])

    def weigh_labels(self) -> None:
        """Votes for an object of which they find a part count more, and so do its pixels; vote again."""
        weights = self.labels.weights(self.cameras, self.render_identity)
        self.weights = self._with_unlabelled(weights.clamp_min(1.0))  # 1 without support
        weigh_rows(self.classifier, self.weights)
        self.boundary.sufficient = self.weights.clamp_min(1.0) ** SUFFICIENT
        self.vote()

    def _with_unlabelled(self, weights: Tensor) -> Tensor:
        """Weights (K,) of votes for the labels where id 0, if it is one of them, has its own."""
        return torch.where(self.classifier.class_ids == UNLABELLED, WEIGHT_OF_UNLABELLED, weights)

    @torch.no_grad()
    def render_identity(self, camera: Camera) -> Tensor:
        """Identity map (16, H, W) of a view."""
        return render(camera, self.model, bg_color=self.background)["render_object"]

    def refine(self, steps: int, told: Told, pace: float = 1.0) -> None:
        """A round of boundary steps with owners frozen, then votes anew. `pace` multiplies learning rates."""
        views = (self.labels(camera) for camera in self.cameras)
        self.boundary.renew(0, self.votes, self.classifier.class_ids, views)
        units = {"xyz": self.extent}
        groups = [
            {"params": [self.model.params[name]], "lr": pace * rate * units.get(name, 1.0)}
            for name, rate in RATES.items()
        ]
        optimizer, codes = Adam(groups, lr=0.0, eps=1e-15), self.boundary.codes
        order: list[int] = []
        for _ in range(steps):
            order = order or random.sample(range(len(self.cameras)), len(self.cameras))
            camera = self.cameras[order.pop()]
            drawn = render(camera, self.model, bg_color=self.background, override_identity=codes)
            photograph = camera.image_uint8
            assert photograph is not None  # of a view of the scene
            loss = l1_ssim(drawn["render"], photograph.to(self.model.device), LAMBDA_DSSIM)
            loss = loss + self.boundary(drawn["render_object"], self.labels(camera))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            told()
        self.vote()

    def save(self, folder: Path) -> None:
        """Write PLY, classifier and votes into the folder of a saved model, which appears whole."""
        state = {name: tensor.cpu() for name, tensor in self.classifier.full_state_dict().items()}
        with atomic_folder(folder) as temporary:
            self.model.save_ply(temporary / POINT_CLOUD)
            torch.save(state, temporary / CLASSIFIER)
            save_votes(temporary / VOTES, self.votes)
