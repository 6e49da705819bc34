"""The phases of a run (section 4.1 and supplement 6 of the paper) and their compression for short runs.

| phase | iterations      | densification | neighbours of L_3d                        |
|-------|-----------------|---------------|-------------------------------------------|
| 1     | 1 - 12,000      | 3DGS          | global                                    |
| 2     | 12,001 - 15,000 | IGD           | none (global or adaptive in the variants) |
| 3     | 15,001 - 30,000 | none          | adaptive (LA-KNN)                         |

Every boundary is an option. A boundary named `x_from_iter` or `x_until_iter` is the last iteration before the
change.
"""

from dataclasses import replace
from typing import Any, Literal

from arguments import GradiSegParams, OptimizationParams, RepairParams
from scene.densification import resets_opacity

OPTIMIZATION_BOUNDARIES = (
    "iterations",
    "position_lr_max_steps",
    "sh_interval",
    "densify_from_iter",
    "densify_until_iter",
    "reg3d_until_iter",
)
GRADISEG_BOUNDARIES = ("igd_from_iter", "igd_until_iter", "la_knn_from_iter")
REPAIR_BOUNDARIES = ("repair_until_iter", "repair_interval")

# Iterations after an opacity reset in which the model is no judge of masks: docs/experiments/early-repairs.md
HEALING = 1000


def scaled_schedule(
    opt: OptimizationParams, gradiseg: GradiSegParams, repair: RepairParams, scale: float
) -> tuple[OptimizationParams, GradiSegParams, RepairParams]:
    """Copies of the options with every boundary times `scale`, so that a short run passes the same phases.

    Boundaries (iterations, densification, IGD, LA-KNN, L_3d, repairs, SH steps, decay of the position
    learning rate) become round(scale * value), at least 1 unless 0. Intervals stay, because what they wait
    for does not get faster: a round of densification or IGD needs the views, and an opacity reset takes about
    a thousand iterations to heal (docs/experiments/schedule.md). Only that of repairs shrinks, so that short
    runs have some. The first one stays where it is, since identities are learned no sooner, but
    comes before IGD wherever it did. Rates and thresholds stay too.
    `schedule_scale` of the copy is 1, so that it cannot be applied twice.

    Raises: ValueError for a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"schedule_scale must be positive, not {scale}")

    def boundary(value: int) -> int:
        return max(round(value * scale), 1) if value > 0 else 0  # 0 means never, or from the start

    optimization: dict[str, Any] = {name: boundary(getattr(opt, name)) for name in OPTIMIZATION_BOUNDARIES}
    phases: dict[str, Any] = {name: boundary(getattr(gradiseg, name)) for name in GRADISEG_BOUNDARIES}
    repairs: dict[str, Any] = {name: boundary(getattr(repair, name)) for name in REPAIR_BOUNDARIES}
    first = repair.repair_from_iter
    before_igd = first <= gradiseg.igd_from_iter
    repairs["repair_from_iter"] = min(first, phases["igd_from_iter"]) if before_igd else boundary(first)
    return (
        replace(opt, **optimization, schedule_scale=1.0),
        replace(gradiseg, **phases),
        replace(repair, **repairs),
    )


def phase(iteration: int, opt: OptimizationParams, gradiseg: GradiSegParams) -> int:
    """1, 2 or 3 as in the table; without IGD phase 1 ends with 3DGS's densification and phase 2 is empty."""
    if iteration <= (gradiseg.igd_from_iter if gradiseg.igd else opt.densify_until_iter):
        return 1
    return 2 if gradiseg.igd and iteration <= gradiseg.igd_until_iter else 3


def identity_neighbours_mode(
    iteration: int, opt: OptimizationParams, gradiseg: GradiSegParams
) -> Literal["global", "adaptive"] | None:
    """Which neighbours L_3d aligns with at `iteration`; None where it is off.

    Without LA-KNN the global neighbours serve throughout, as in Gaussian Grouping. With it they serve until
    `igd_from_iter` (also where IGD itself is switched off) and LA-KNN's after `la_knn_from_iter`.
    """
    if iteration > opt.reg3d_until_iter:
        return None
    if not gradiseg.la_knn:
        return "global"
    if iteration > gradiseg.la_knn_from_iter:
        return "adaptive"
    return "global" if iteration <= gradiseg.igd_from_iter else None


def repair_is_due(iteration: int, opt: OptimizationParams, repair: RepairParams) -> bool:
    """Whether the training labels are repaired before `iteration + 1`.

    Repairs whose turn would come while opacities heal from a reset are done just before that reset.
    """
    turns = range(repair.repair_from_iter, repair.repair_until_iter + 1, repair.repair_interval)
    since_reset = iteration % opt.opacity_reset_interval
    if resets_opacity(iteration, opt):
        healed = iteration + min(HEALING, opt.opacity_reset_interval)
        due = any(turn in turns for turn in range(iteration, healed))
    elif since_reset < HEALING and resets_opacity(iteration - since_reset, opt):
        due = False
    else:
        due = iteration in turns
    return repair.repair_masks and due
