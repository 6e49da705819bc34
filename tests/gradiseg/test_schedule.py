"""The phase table at full length and compressed, and its variants."""

from dataclasses import fields
from typing import Any

import pytest

from arguments import GradiSegParams, OptimizationParams, RepairParams, final_iteration
from gradiseg.schedule import HEALING, Schedule

TABLE = [  # fraction of the run, whether IGD acts, neighbours of L_3d
    (1e-4, False, "global"),
    (0.4, False, "global"),
    (0.4 + 1e-3, True, None),
    (0.5, True, None),
    (0.5 + 1e-3, False, "adaptive"),
    (1.0, False, "adaptive"),
]


def schedule(
    opt: dict[str, Any] | None = None, repair: dict[str, Any] | None = None, **gradiseg: Any
) -> Schedule:
    """The defaults, but for these options."""
    return Schedule(
        OptimizationParams(**(opt or {})), GradiSegParams(**gradiseg), RepairParams(**(repair or {}))
    )


def mode(iteration: int, **changes: Any) -> str | None:
    return schedule(**changes).neighbours(iteration)


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize(("fraction", "igd", "neighbours"), TABLE)
def test_phases_of_the_paper(scale: float, fraction: float, igd: bool, neighbours: str | None) -> None:
    scaled = schedule().scaled(scale)
    iteration = max(round(fraction * scaled.opt.iterations), 1)
    assert scaled.igd_is_active(iteration) == igd
    assert scaled.neighbours(iteration) == neighbours


def test_a_tenth() -> None:
    scaled = schedule().scaled(0.1)
    opt, gradiseg = scaled.opt, scaled.gradiseg
    assert (opt.iterations, opt.position_lr_max_steps, opt.reg3d_until_iter) == (3000, 3000, 3000)
    assert (opt.densify_from_iter, opt.densify_until_iter, opt.sh_interval) == (50, 1200, 100)
    assert (gradiseg.igd_from_iter, gradiseg.igd_until_iter, gradiseg.la_knn_from_iter) == (1200, 1500, 1500)


@pytest.mark.parametrize("scale", [0.003, 0.2333, 1.0, 2.0])
def test_scaling_agrees_with_the_command_line_and_keeps_the_order(scale: float) -> None:
    whole = schedule({"schedule_scale": scale})
    scaled, before = whole.scaled(scale), whole.opt
    opt, gradiseg = scaled.opt, scaled.gradiseg
    assert opt.iterations == final_iteration(before.iterations, scale)
    boundaries = [gradiseg.igd_from_iter, gradiseg.igd_until_iter, gradiseg.la_knn_from_iter, opt.iterations]
    assert boundaries == sorted(boundaries)
    assert opt.schedule_scale == 1.0 and before.schedule_scale == scale and before.iterations == 30_000


def test_rates_thresholds_and_intervals_are_untouched() -> None:
    scaled = schedule().scaled(0.5)
    opt, gradiseg = scaled.opt, scaled.gradiseg
    assert (opt.densification_interval, opt.opacity_reset_interval, gradiseg.igd_interval) == (100, 3000, 100)
    changed = {f.name for f in fields(opt) if getattr(opt, f.name) != getattr(OptimizationParams(), f.name)}
    assert not {name for name in changed if "lr_init" in name or "threshold" in name or "lambda" in name}
    assert opt.reg3d_interval == 5 and gradiseg.igd_std_factor == GradiSegParams().igd_std_factor


def test_zero_stays_zero() -> None:
    scaled = schedule({"reg3d_until_iter": 0}).scaled(0.1)
    assert scaled.opt.reg3d_until_iter == 0
    assert scaled.neighbours(1) is None


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_positive_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        schedule().scaled(scale)


def test_variants_of_the_neighbours() -> None:
    assert {mode(i, igd=False, la_knn=False) for i in (1, 12_500, 30_000)} == {"global"}  # Gaussian Grouping
    assert mode(12_001, la_knn_from_iter=12_000) == "adaptive"  # the main text
    assert mode(13_000, igd=False) is None and mode(15_001, igd=False) == "adaptive"


@pytest.mark.parametrize(("first", "fewest"), [(2000, 6), (12_000, 5)])
@pytest.mark.parametrize("scale", [0.003, 0.13, 0.26, 0.334, 0.5, 1.0, 2.0])
def test_masks_are_repaired_before_igd_looks_and_never_while_opacities_heal(
    scale: float, first: int, fewest: int
) -> None:
    scaled = schedule(repair={"repair_from_iter": first}).scaled(scale)
    opt, gradiseg, repair = scaled.opt, scaled.gradiseg, scaled.repair
    due = [i for i in range(1, opt.iterations + 1) if scaled.repair_is_due(i)]
    resets = range(opt.opacity_reset_interval, opt.densify_until_iter, opt.opacity_reset_interval)
    assert repair.repair_from_iter == min(first, gradiseg.igd_from_iter)
    assert due[0] == next(
        (r for r in resets if r < repair.repair_from_iter < r + HEALING), repair.repair_from_iter
    )
    assert not [(i, r) for i in due for r in resets if r < i < r + HEALING]
    assert len(due) >= fewest


def test_a_repair_goes_before_the_reset_of_the_same_iteration() -> None:
    often = schedule(repair={"repair_from_iter": 3000, "repair_interval": 500})
    due = [i for i in range(2501, 6001) if often.repair_is_due(i)]
    assert due == [3000, 4000, 4500, 5000, 5500, 6000]
    seldom = schedule(repair={"repair_from_iter": 3500, "repair_interval": 3000})
    assert [i for i in range(2501, 6001) if seldom.repair_is_due(i)] == [3000, 6000]


def test_a_first_repair_after_igd_began_is_compressed_with_the_schedule() -> None:
    assert schedule(repair={"repair_from_iter": 20_000}).scaled(0.1).repair.repair_from_iter == 2000
