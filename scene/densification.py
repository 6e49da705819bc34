"""Adaptive control of the number of Gaussians: the strategy interface and 3DGS's own strategy.

A strategy has two hooks. `after_backward` reads the gradients of one rendered view and accumulates
statistics; `step` changes the Gaussians when its schedule says so. Every strategy guards its own window of
iterations, so the training loop calls all of them every iteration. Invariant: strategies own no per-Gaussian
tensor. Their statistics live in `model.state` and N changes only through `scene.gaussian_ops`, so checkpoints
and other strategies see consistent rows.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from arguments import OptimizationParams
from scene import gaussian_ops as ops
from scene.gaussian_model import GaussianModel
from utils.graphics import build_rotation

SPLIT_SHRINK = 1.6  # 3DGS: children of a random split are 0.8 * 2 times smaller than the parent
OPACITY_CEILING = 0.01  # 3DGS: left by a reset; above min_opacity, so that a reset alone prunes nothing
LARGE_SCALE = 0.1  # 3DGS: a Gaussian wider than this share of the scene's extent is a floater or a fog


class DensificationStrategy:
    """Base: leaves the Gaussians as they are."""

    def after_backward(self, model: GaussianModel, render_pkg: Mapping[str, Any], iteration: int) -> None:
        """Accumulate statistics of one view after its backward pass; `render_pkg` comes from `render`."""

    def step(self, model: GaussianModel, iteration: int, extent: float) -> dict[str, int]:
        """Change the Gaussians if due; `extent` is the radius of the cameras.

        Returns: counts under `cloned`, `split` and `pruned` when the strategy acted, else an empty dict.
        """
        return {}


def resets_opacity(iteration: int, opt: OptimizationParams) -> bool:
    """Whether 3DGS densification resets opacities after `iteration`, as it does at regular intervals."""
    return 0 < iteration < opt.densify_until_iter and iteration % opt.opacity_reset_interval == 0


class DefaultDensification(DensificationStrategy):
    """3DGS: clone or split where the screen-space position gradient is high, prune the faint and the large.

    3DGS also names 20 pixels as the largest radius in a view, but clears the radii when it densifies, just
    before it tests them, so that nothing is pruned by it: here there is no such rule.
    """

    def __init__(self, opt: OptimizationParams, white_background: bool = False) -> None:
        self.opt = opt
        self.white_background = white_background

    def after_backward(self, model: GaussianModel, render_pkg: Mapping[str, Any], iteration: int) -> None:
        """Accumulate |dL/d viewspace point| of the visible Gaussians."""
        gradient = render_pkg["viewspace_points"].grad  # (N, 3) in NDC units; None if nothing was visible
        if iteration >= self.opt.densify_until_iter or gradient is None:
            return
        visible = render_pkg["visibility_filter"]  # (N,) bool
        accumulate(model, "xyz_gradient_accum", "denom", gradient[:, :2], visible)

    def step(self, model: GaussianModel, iteration: int, extent: float) -> dict[str, int]:
        """Densify and prune, then reset opacities, each at its own interval."""
        opt = self.opt
        report: dict[str, int] = {}
        if iteration >= opt.densify_until_iter:
            return report
        if iteration > opt.densify_from_iter and iteration % opt.densification_interval == 0:
            report = self._densify(model, extent) | self._prune(model, iteration, extent)
            for name in ("xyz_gradient_accum", "denom"):
                model.state[name].zero_()
        white_start = self.white_background and iteration == opt.densify_from_iter
        if resets_opacity(iteration, opt) or white_start:
            ops.reset_opacity(model, OPACITY_CEILING)
        return report

    def _densify(self, model: GaussianModel, extent: float) -> dict[str, int]:
        """Clone small Gaussians and split large ones whose mean gradient reaches the threshold."""
        gradient = mean_over_views(model.state["xyz_gradient_accum"], model.state["denom"])  # (N,)
        candidates = gradient >= self.opt.densify_grad_threshold
        growing = limit_growth(candidates, gradient, growth_budget(model, self.opt.max_gaussians))
        small = model.get_scaling.detach().amax(dim=1) <= self.opt.percent_dense * extent  # (N,)
        cloned, parents = growing & small, growing & ~small
        new = ops.concatenate(ops.select(model.params, cloned), random_children(model.params, parents))
        ops.split(model, parents, new)
        return {"cloned": int(cloned.sum()), "split": int(parents.sum())}

    def _prune(self, model: GaussianModel, iteration: int, extent: float) -> dict[str, int]:
        doomed = to_prune(model, self.opt, iteration, extent)
        ops.keep(model, ~doomed)
        return {"pruned": int(doomed.sum())}


def accumulate(model: GaussianModel, total: str, count: str, gradient: Tensor, visible: Tensor) -> None:
    """Add |gradient| per Gaussian to `state[total]` and 1 to `state[count]` where `visible`.

    gradient: (N, ...), visible: (N,) bool. A gradient that is not finite counts 0: one bad pixel must not
    split.
    """
    norm = gradient.detach().flatten(1).norm(dim=1, keepdim=True)  # (N, 1)
    seen = visible[:, None]  # (N, 1)
    model.state[total] += norm.nan_to_num_(0.0, 0.0, 0.0).mul_(seen)
    model.state[count] += seen


def mean_over_views(total: Tensor, count: Tensor) -> Tensor:
    """`total / count` (both (N, 1)) as (N,); 0 for a Gaussian that no view saw."""
    return torch.where(count > 0, total / count.clamp_min(1), 0.0).nan_to_num(nan=0.0).squeeze(1)


def growth_budget(model: GaussianModel, max_gaussians: int) -> int | None:
    """How many Gaussians may be added under the cap `max_gaussians`; None where there is no cap (0)."""
    return max(max_gaussians - model.num_gaussians, 0) if max_gaussians > 0 else None


def limit_growth(candidates: Tensor, score: Tensor, budget: int | None) -> Tensor:
    """The `budget` candidates of highest `score`, ties to the lower index; all of them without a budget.

    candidates: (N,) bool, score: (N,). Cloning and splitting both add one Gaussian per candidate.
    """
    if budget is None or int(candidates.sum()) <= budget:
        return candidates
    index = candidates.nonzero().squeeze(1)  # (C,)
    order = torch.sort(score[index], descending=True, stable=True).indices  # (C,)
    chosen = torch.zeros_like(candidates)
    chosen[index[order[:budget]]] = True
    return chosen


def too_faint(model: GaussianModel, min_opacity: float) -> Tensor:
    """(N,) bool: opacity under `min_opacity`."""
    return model.get_opacity.detach().squeeze(1) < min_opacity


def to_prune(model: GaussianModel, opt: OptimizationParams, iteration: int, extent: float) -> Tensor:
    """(N,) bool: the faint and, once an opacity reset has weeded, the large, as in 3DGS."""
    doomed = too_faint(model, opt.min_opacity)
    return doomed | too_large(model, extent) if iteration > opt.opacity_reset_interval else doomed


def too_large(model: GaussianModel, extent: float) -> Tensor:
    """(N,) bool: the longest axis exceeds LARGE_SCALE of the scene's extent."""
    return model.get_scaling.detach().amax(dim=1) > LARGE_SCALE * extent


def random_children(params: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """3DGS's split: two children per Gaussian of `mask`, drawn from the Gaussian and 1.6 times smaller.

    params: as in `GaussianModel.params`, mask: (N,) bool with S true. All else is inherited.
    Returns: parameters of 2 S children, all first children before all second ones. Uses torch's generator.
    """
    parents = ops.select(params, mask)
    children = ops.concatenate(parents, parents)
    deviation = torch.exp(children["scaling"])  # (2 S, 3)
    offset = torch.randn_like(deviation) * deviation  # (2 S, 3) along the principal axes
    rotation = build_rotation(children["rotation"])  # (2 S, 3, 3)
    children["xyz"] = children["xyz"] + (rotation @ offset[:, :, None]).squeeze(2)
    children["scaling"] = torch.log(deviation / SPLIT_SHRINK)
    return children
