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

from arguments import GradiSegParams, OptimizationParams

# Under this many iterations between rounds the statistics of a Gaussian come from a handful of views.
MIN_INTERVAL = 30

OPTIMIZATION_BOUNDARIES = (
    "iterations",
    "position_lr_max_steps",
    "sh_interval",
    "densify_from_iter",
    "densify_until_iter",
    "opacity_reset_interval",
    "reg3d_until_iter",
)
GRADISEG_BOUNDARIES = ("igd_from_iter", "igd_until_iter", "la_knn_from_iter")


def scaled_schedule(
    opt: OptimizationParams, gradiseg: GradiSegParams, scale: float
) -> tuple[OptimizationParams, GradiSegParams]:
    """Copies of the options with every boundary times `scale`, so that a short run passes the same phases.

    Boundaries (iterations, densification, IGD, LA-KNN, L_3d, opacity resets, SH steps, decay of the position
    learning rate) become round(scale * value), at least 1 unless 0. The intervals of densification and IGD
    become round(scale * value) too, but at least MIN_INTERVAL and never more than they were: fewer rounds,
    each on enough views. Rates, thresholds and `reg3d_interval` stay. `schedule_scale` of the copy is 1, so
    that it cannot be applied twice.

    Raises: ValueError for a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"schedule_scale must be positive, not {scale}")

    def boundary(value: int) -> int:
        return max(round(value * scale), 1) if value > 0 else 0  # 0 means never, or from the start

    def interval(value: int) -> int:
        return min(max(round(value * scale), MIN_INTERVAL), value)

    optimization: dict[str, Any] = {name: boundary(getattr(opt, name)) for name in OPTIMIZATION_BOUNDARIES}
    phases: dict[str, Any] = {name: boundary(getattr(gradiseg, name)) for name in GRADISEG_BOUNDARIES}
    densification_interval = interval(opt.densification_interval)
    return (
        replace(opt, **optimization, densification_interval=densification_interval, schedule_scale=1.0),
        replace(gradiseg, **phases, igd_interval=interval(gradiseg.igd_interval)),
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
