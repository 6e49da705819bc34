"""Identity gradient guided densification (IGD), section 3.4 and Algorithm 1 of the paper.

A Gaussian that lies across the boundary of two objects has one identity encoding for two identities; the
views pull it to and fro and its gradient stays high. IGD accumulates |dL/de_i|_2 over the views that see
Gaussian i, splits the Gaussians where the accumulated gradient is anomalously high, and forgets the
accumulated gradient of those.

The paper gives neither the threshold tau nor the geometry of the split; both are named options here.

Rules (`igd_rule`), over the Gaussians seen since their accumulator was last zero:
- `absolute`: accumulated gradient > tau (Algorithm 1 to the letter; depends on resolution and on the
  interval);
- `mean_std`: mean gradient per visible view > mean + k * std of that quantity over the visible Gaussians;
- `quantile`: mean gradient per visible view > its q-quantile.

Splits (`igd_split`): `random` is 3DGS's. `directional` cuts the Gaussian across one principal axis n, of
standard deviation s, as if the boundary ran through its centre:
- The half of N(0, s^2) on one side has mean s sqrt(2/pi) = 0.798 s and standard deviation s sqrt(1 - 2/pi) =
  0.603 s. Children with these centres and widths and equal weight conserve mean and covariance of the parent
  exactly: 0.798^2 + 0.603^2 = 1. The other two axes, the rotation, the colour and the identity encoding are
  inherited.
- n is the axis with the largest |g_local * s|, g being the running mean of the position gradient (Adam's
  first moment) in the Gaussian's own axes: the loss changes fastest, per standard deviation, across the
  boundary. Where g is zero or not finite, n is the longest axis.
- Opacity. In a view that sees n from the side, the parent's alpha along n is o exp(-x^2 / 2 s^2) with the
  integral o s sqrt(2 pi); children whose alphas add up have 2 o_c 0.603 s sqrt(2 pi). Equal integrals give
  o_c = o / (2 sqrt(1 - 2/pi)) = 0.829 o. Compositing 1 - (1 - a_1)(1 - a_2) instead of adding loses at most
  5.1% of the integral (at o = 1), and the rule is within 1e-3 of the least-squares optimum of the composited
  profile for every o, while 1 - sqrt(1 - o), which is exact along n, is 0.50 o for faint Gaussians and misses
  half of that profile. The side view is the one that matters because screen-space gradients, which chose n,
  have next to no component along the ray. No opacity removes the dip between two halves of a smooth bump: the
  relative L2 error of the profile is 0.24 (faint) to 0.29 (opaque). It is where the boundary goes.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from arguments import GradiSegParams
from gradiseg.schedule import Schedule
from scene import gaussian_ops as ops
from scene.densification import (
    DensificationStrategy,
    accumulate,
    growth_budget,
    limit_growth,
    mean_over_views,
    random_children,
    too_faint,
)
from scene.gaussian_model import GaussianModel
from utils.general import inverse_sigmoid
from utils.graphics import build_rotation

HALF_MEAN = math.sqrt(2.0 / math.pi)  # mean of the half-normal distribution, in parent's standard deviations
HALF_DEVIATION = math.sqrt(1.0 - 2.0 / math.pi)  # its standard deviation
CHILD_OPACITY = 0.5 / HALF_DEVIATION  # two children, each narrower by HALF_DEVIATION, with the parent's mass
MIN_CHILD_OPACITY = 1e-6  # keeps the logit finite; far below what any pruning leaves


class IdentityGradientDensification(DensificationStrategy):
    """IGD over the iterations (igd_from_iter, igd_until_iter], one round every igd_interval of them.

    Statistics: `identity_gradient_accum` (sum of |dL/de_i|) and `identity_gradient_denom` (views) in the
    model's state. A round prunes the faint, then splits. Algorithm 1 also prunes the too large, but those are
    opaque ones of the background, whose holes no densification by colour fills any more, see
    docs/experiments/pruning.md. Gaussians that were not split keep their accumulated gradient for the next
    round.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.opt, self.gradiseg = schedule, schedule.opt, schedule.gradiseg

    def after_backward(self, model: GaussianModel, render_pkg: Mapping[str, Any], iteration: int) -> None:
        """Accumulate |dL_2d/de_i| of one view: the gradient that a boundary causes, without that of L_3d.

        It is the gradient of `render_pkg["identity_encodings"]` (N, 1, 16), what the renderer was given. A
        view without a mask has none, and does not count.
        """
        if not self.schedule.igd_is_active(iteration) or not render_pkg["is_masked"]:
            return
        gradient = render_pkg["identity_encodings"].grad
        visible = render_pkg["visibility_filter"]  # (N,) bool
        accumulate(model, "identity_gradient_accum", "identity_gradient_denom", gradient, visible)

    def step(self, model: GaussianModel, iteration: int, extent: float) -> dict[str, int]:
        """Prune, then split, at the end of every interval of the window."""
        if not self.schedule.igd_is_due(iteration):
            return {}
        doomed = too_faint(model, self.opt.min_opacity)
        ops.keep(model, ~doomed)
        return {"cloned": 0, "split": self._split(model), "pruned": int(doomed.sum())}

    def _split(self, model: GaussianModel) -> int:
        """Split the anomalous Gaussians in two, under the cap the most anomalous first; returns how many."""
        score, anomalous = anomalous_gaussians(model, self.gradiseg)
        parents = limit_growth(anomalous, score, growth_budget(model, self.opt.max_gaussians))
        if self.gradiseg.igd_split == "directional":
            children = directional_children(model.params, parents, ops.first_moment(model, "xyz"))
        else:
            children = random_children(model.params, parents)
        ops.split(model, parents, children)  # the children's accumulators start at zero
        return int(parents.sum())


def anomalous_gaussians(model: GaussianModel, options: GradiSegParams) -> tuple[Tensor, Tensor]:
    """The scores (N,) of the model's accumulated gradients, and which of them are anomalous (N,) bool."""
    accum, denom = model.state["identity_gradient_accum"], model.state["identity_gradient_denom"]
    anomalous = select_anomalous(
        accum,
        denom,
        options.igd_rule,
        threshold=options.igd_grad_threshold,
        std_factor=options.igd_std_factor,
        quantile=options.igd_quantile,
    )
    return anomaly_score(accum, denom, options.igd_rule), anomalous


def anomaly_score(accum: Tensor, denom: Tensor, rule: str) -> Tensor:
    """What `rule` compares, (N,): the accumulated gradient for `absolute`, else its mean per visible view."""
    return accum.squeeze(1) if rule == "absolute" else mean_over_views(accum, denom)


def select_anomalous(
    accum: Tensor, denom: Tensor, rule: str, *, threshold: float, std_factor: float, quantile: float
) -> Tensor:
    """Gaussians whose identity gradient is anomalously high, (N,) bool; never one that no view saw.

    accum, denom: (N, 1) summed gradient norms and the number of views in the sum.

    Raises: ValueError for an unknown rule.
    """
    score, visible = anomaly_score(accum, denom, rule), denom.squeeze(1) > 0  # (N,)
    seen = score[visible]
    if seen.numel() == 0:
        return visible
    if rule == "absolute":
        limit: Tensor | float = threshold
    elif rule == "mean_std":
        values = seen.cpu().numpy()  # NumPy adds in one order; torch's would depend on the number of threads
        limit = float(values.mean() + std_factor * values.std())
    elif rule == "quantile":
        rank = min(max(math.ceil(quantile * seen.numel()), 1), seen.numel())
        limit = torch.kthvalue(seen, rank).values  # torch.quantile refuses more than 16 M values
    else:
        raise ValueError(f"igd_rule must be absolute, mean_std or quantile, not {rule!r}")
    return visible & (score > limit)


def split_axis(deviation: Tensor, rotation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The principal axis to cut across, of every Gaussian.

    deviation: (N, 3) standard deviations, rotation: (N, 4) quaternions, gradient: (N, 3) of the position in
    world axes.
    Returns: index of the axis (N,) int64 and its unit direction in world axes (N, 3).
    """
    axes = build_rotation(rotation)  # (N, 3, 3), column k is principal axis k
    local = (axes.transpose(1, 2) @ gradient[:, :, None]).squeeze(2)  # (N, 3)
    strength = (local * deviation).abs()  # (N, 3) change of the loss per standard deviation
    usable = strength.isfinite().all(dim=1) & (strength.amax(dim=1) > 0)  # (N,)
    index = torch.where(usable[:, None], strength, deviation).argmax(dim=1)  # (N,)
    direction = axes.gather(2, index[:, None, None].expand(-1, 3, 1)).squeeze(2)  # (N, 3)
    return index, direction


def half_offset(deviation: Tensor, rotation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """`split_axis`'s index (N,), and where the positive half's centre lies from the parent's (N, 3)."""
    index, direction = split_axis(deviation, rotation, gradient)
    return index, HALF_MEAN * deviation.gather(1, index[:, None]) * direction


def directional_children(params: Mapping[str, Tensor], mask: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """The two halves of every Gaussian of `mask`, on either side of its centre along `split_axis`.

    params: as in `GaussianModel.params`, mask: (N,) bool with S true, gradient: (N, 3) running position
    gradient.
    Returns: parameters of 2 S children, all positive sides before all negative ones; see the module
    docstring.
    """
    parents = ops.select(params, mask)
    deviation = torch.exp(parents["scaling"])  # (S, 3)
    index, offset = half_offset(deviation, parents["rotation"], gradient[mask])  # (S,), (S, 3)
    shrink = torch.zeros_like(deviation).scatter_(1, index[:, None], math.log(HALF_DEVIATION))  # (S, 3)
    opacity = CHILD_OPACITY * torch.sigmoid(parents["opacity"])  # (S, 1), below 0.83
    halves = parents | {
        "scaling": parents["scaling"] + shrink,
        "opacity": inverse_sigmoid(opacity.clamp_min(MIN_CHILD_OPACITY)),
    }
    return ops.concatenate(
        halves | {"xyz": parents["xyz"] + offset},
        halves | {"xyz": parents["xyz"] - offset},
    )
