"""The training objective, eq. 5: L = L_rgb + alpha * L_2d + beta * L_3d."""

import math
from dataclasses import dataclass

from fused_losses import TileCrossEntropy, l1_ssim, linear_cross_entropy
from simple_knn import MAX_NEIGHBOURS, PointTree
from torch import Tensor

from gradiseg import la_knn
from gradiseg.classifier import IGNORED, IdentityClassifier
from gradiseg.schedule import Schedule
from scene import gaussian_ops as ops
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from utils.errors import UserError

# The colour loss at which alpha is `identity_lambda_val`; the benchmark scenes end at 0.02 to 0.05.
RGB_REFERENCE = 0.04
# ... and how many times that at most: at the start and after an opacity reset the loss rises to 0.3.
MAX_ALPHA_FACTOR = 2.0


@dataclass
class Losses:
    """Scalars of one iteration, each with its weight in; None where a term is off in this iteration."""

    rgb: Tensor
    identity_2d: Tensor | None = None
    identity_3d: Tensor | None = None
    boundary: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """L of eq. 5, and what a boundary step adds."""
        terms = (self.identity_2d, self.identity_3d, self.boundary)
        return sum((term for term in terms if term is not None), start=self.rgb)


class Objective:
    """Eq. 5 with the schedule of its terms.

    - L_rgb = (1 - lambda_dssim) L1 + lambda_dssim (1 - SSIM), as in 3DGS.
    - L_2d: softmax cross-entropy of the classified identity map against the view's ids, divided by log C so
      that it lies in [0, 1] at the start; absent in views without a mask. alpha is in proportion to the
      view's L_rgb up to a bound, or constant without `identity_lambda_by_rgb`.
    - L_3d (eq. 3): every `reg3d_interval` iterations, with the neighbours that `schedule` names.
    """

    def __init__(self, schedule: Schedule, classifier: IdentityClassifier) -> None:
        self.schedule, self.opt, self.classifier = schedule, schedule.opt, classifier
        pool = schedule.gradiseg.la_knn_candidates
        self.candidates: la_knn.Candidates = "all" if pool == "all" else int(pool)
        fewest = self.opt.reg3d_k
        if schedule.gradiseg.la_knn and pool != "all" and not fewest <= int(pool) <= MAX_NEIGHBOURS:
            raise UserError(
                f"--la_knn_candidates {pool}: give {fewest} (--reg3d_k) to {MAX_NEIGHBOURS}, or 'all'."
            )
        self.ignored = IGNORED if self.opt.ignore_label >= 0 else None
        self._tree = PointTree()  # a speed-up only: it decides nothing, so checkpoints do without it

    def __call__(
        self,
        iteration: int,
        camera: Camera,
        labels: Tensor | None,
        rendered: dict[str, Tensor],
        model: GaussianModel,
    ) -> Losses:
        """All terms for one rendered view; `labels` (H, W) are those it trains, None where it has no mask."""
        photograph = camera.image_uint8
        assert photograph is not None  # of a training view
        photograph = photograph.to(rendered["render"].device, non_blocking=True)
        losses = Losses(l1_ssim(rendered["render"], photograph, self.opt.lambda_dssim))
        if labels is not None:
            losses.identity_2d = self.identity_2d(rendered, labels, losses.rgb)
        mode = self.schedule.neighbours(iteration)
        if mode is not None and iteration % self.opt.reg3d_interval == 0:
            losses.identity_3d = self.opt.reg3d_lambda_val * self.identity_3d(model, mode)
        return losses

    def in_tiles(self, labels: Tensor | None) -> TileCrossEntropy | None:
        """L_2d against labels (H,W) as `render` takes it; None where there are none, or on a GPU."""
        if labels is None or labels.device.type != "cpu":
            return None
        return TileCrossEntropy(self.classifier.weight, self.classifier.bias, labels, self.ignored)

    def identity_2d(self, rendered: dict[str, Tensor], labels: Tensor, rgb: Tensor) -> Tensor:
        """alpha L_2d against labels (H,W), in a view whose colour loss is `rgb`: by its tiles, or its map."""
        alpha = self.alpha(rgb)
        if "identity_loss" in rendered:
            return alpha * rendered["identity_loss"]
        weight, bias = self.classifier.weight, self.classifier.bias
        identity_map = rendered["render_object"]
        return linear_cross_entropy(
            identity_map, weight, bias, labels, ignore_label=self.ignored, scale=alpha
        )

    def alpha(self, rgb: Tensor) -> float | Tensor:
        """The weight of a cross-entropy in a view whose colour loss is `rgb`, the division by log C in it.

        alpha is `identity_lambda_val` times that loss over `RGB_REFERENCE`, so that identities and colours
        keep their balance where photographs are explained badly, but `MAX_ALPHA_FACTOR` times at most;
        without `identity_lambda_by_rgb` it is `identity_lambda_val`, as in the paper.
        """
        scale: float | Tensor = self.opt.identity_lambda_val / math.log(self.classifier.num_classes)
        if self.schedule.repair.identity_lambda_by_rgb:
            scale = scale * (rgb.detach() / RGB_REFERENCE).clamp(max=MAX_ALPHA_FACTOR)
        return scale

    def identity_3d(self, model: GaussianModel, mode: str) -> Tensor:
        """L_3d over sampled Gaussians and their `global` or `adaptive` neighbours."""
        opt = self.opt
        points = model.get_xyz.detach()  # (N, 3)
        sample, pool = la_knn.sample_gaussians(
            model.num_gaussians, opt.reg3d_sample_size, opt.reg3d_max_points, device=points.device
        )
        if mode == "adaptive":
            # Adam's running mean: this view's gradient is zero for the Gaussians it does not see
            gradient = ops.first_moment(model, "xyz")
            neighbours = la_knn.adaptive_neighbours(
                points, sample, gradient, opt.reg3d_k, self.candidates, pool, self._tree
            )
        else:
            neighbours = la_knn.global_neighbours(points, sample, opt.reg3d_k, pool, self._tree)
        normalize_by = self.classifier.num_classes if opt.reg3d_normalize else None
        return la_knn.neighbour_kl(
            model.get_objects, self.classifier.weight, self.classifier.bias, sample, neighbours, normalize_by
        )
