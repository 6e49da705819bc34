"""The phases of a run (section 4.1 and supplement 6 of the paper) and their compression for short runs.

| phase | iterations      | densification | neighbours of L_3d                        |
|-------|-----------------|---------------|-------------------------------------------|
| 1     | 1 - 12,000      | 3DGS          | global                                    |
| 2     | 12,001 - 15,000 | IGD           | none (global or adaptive in the variants) |
| 3     | 15,001 - 30,000 | none          | adaptive (LA-KNN)                         |

Every boundary is an option. A boundary named `x_from_iter` or `x_until_iter` is the last iteration before the
change.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from arguments import GradiSegParams, OptimizationParams, RepairParams
from scene.densification import resets_opacity

OPTIMIZATION_BOUNDARIES = (
    "iterations",
    "position_lr_max_steps",
    "densify_from_iter",
    "densify_until_iter",
    "quarter_resolution_until_iter",
    "half_resolution_until_iter",
)
GRADISEG_BOUNDARIES = ("igd_from_iter", "igd_until_iter", "la_knn_from_iter")

SH_INTERVAL = 1000  # iterations per degree of spherical harmonics, as in 3DGS: colour first, then shine
REPAIR_UNTIL = 27_000  # no repair after it: the run's last tenth learns from what the last one left
# Iterations after an opacity reset, or after the resolution rose, in which the model is no judge of masks:
# docs/experiments/early-repairs.md
HEALING = 1000


@dataclass(frozen=True)
class Schedule:
    """The options of a run's optimisation, and what they say about an iteration."""

    opt: OptimizationParams
    gradiseg: GradiSegParams
    repair: RepairParams
    sh_interval: int = SH_INTERVAL
    repair_until: int = REPAIR_UNTIL

    def scaled(self, scale: float) -> "Schedule":
        """A copy with every boundary times `scale`, so that a short run passes the same phases.

        Boundaries (iterations, resolution, densification, IGD, LA-KNN, repairs, SH steps, decay of the
        position learning rate) become round(scale * value), at least 1 unless 0. Intervals stay, because what
        they wait for does not get faster: a round of densification or IGD needs the views, and an opacity
        reset takes about a thousand iterations to heal (docs/experiments/schedule.md). Only that of repairs
        shrinks, so that short runs have some. The first one stays where it is, since identities are learned
        no sooner, but comes before IGD wherever it did. Rates and thresholds stay too. `schedule_scale` of
        the copy is 1, so that it cannot be applied twice.

        Raises: ValueError for a scale that is not positive.
        """
        if not scale > 0:
            raise ValueError(f"schedule_scale must be positive, not {scale}")

        def boundary(value: int) -> int:
            return max(round(value * scale), 1) if value > 0 else 0  # 0 means never, or from the start

        opt, gradiseg, repair = self.opt, self.gradiseg, self.repair
        optimization: dict[str, Any] = {n: boundary(getattr(opt, n)) for n in OPTIMIZATION_BOUNDARIES}
        phases: dict[str, Any] = {n: boundary(getattr(gradiseg, n)) for n in GRADISEG_BOUNDARIES}
        first = repair.repair_from_iter
        before_igd = first <= gradiseg.igd_from_iter
        first = min(first, phases["igd_from_iter"]) if before_igd else boundary(first)
        interval = boundary(repair.repair_interval)
        return Schedule(
            replace(opt, **optimization, schedule_scale=1.0),
            replace(gradiseg, **phases),
            replace(repair, repair_from_iter=first, repair_interval=interval),
            boundary(self.sh_interval),
            boundary(self.repair_until),
        )

    def halvings(self, iteration: int) -> int:
        """How often width and height are halved at `iteration`."""
        if iteration <= self.opt.quarter_resolution_until_iter:
            return 2
        return 1 if iteration <= self.opt.half_resolution_until_iter else 0

    def igd_is_active(self, iteration: int) -> bool:
        """Whether `iteration` lies in IGD's window."""
        return self.gradiseg.igd and self.gradiseg.igd_from_iter < iteration <= self.gradiseg.igd_until_iter

    def igd_is_due(self, iteration: int) -> bool:
        """Whether a round of IGD follows `iteration`."""
        rounds = (iteration - self.gradiseg.igd_from_iter) % self.gradiseg.igd_interval == 0
        return rounds and self.igd_is_active(iteration)

    def neighbours(self, iteration: int) -> Literal["global", "adaptive"] | None:
        """Which neighbours L_3d aligns with at `iteration`; None where it is off.

        Without LA-KNN the global neighbours serve throughout, as in Gaussian Grouping. With it they serve
        until `igd_from_iter` (also where IGD itself is switched off) and LA-KNN's after `la_knn_from_iter`.
        """
        if not self.gradiseg.la_knn:
            return "global"
        if iteration > self.gradiseg.la_knn_from_iter:
            return "adaptive"
        return "global" if iteration <= self.gradiseg.igd_from_iter else None

    def boundary_is_due(self, iteration: int) -> bool:
        """Whether `iteration` is a boundary step: the number of Gaussians does not change any more then."""
        interval = self.repair.boundary_interval
        last_change = max(self.opt.densify_until_iter, self.gradiseg.igd * self.gradiseg.igd_until_iter)
        return interval > 0 and iteration > last_change and iteration % interval == 0

    def repair_is_due(self, iteration: int) -> bool:
        """Whether the training labels are repaired before `iteration + 1`.

        Repairs whose turn would come while opacities heal from a reset are done just before that reset. None
        come at low resolution, where thin things are not learned, nor soon after it.
        """
        repair = self.repair
        rose = max(self.opt.quarter_resolution_until_iter, self.opt.half_resolution_until_iter)
        if rose > 0 and iteration < rose + HEALING:
            return False
        turns = range(repair.repair_from_iter, self.repair_until + 1, repair.repair_interval)
        since_reset = iteration % self.opt.opacity_reset_interval
        if resets_opacity(iteration, self.opt):
            healed = iteration + min(HEALING, self.opt.opacity_reset_interval)
            due = any(turn in turns for turn in range(iteration, healed))
        elif since_reset < HEALING and resets_opacity(iteration - since_reset, self.opt):
            due = False
        else:
            due = iteration in turns
        return repair.repair_masks and due
