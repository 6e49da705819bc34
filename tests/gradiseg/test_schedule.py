"""The phase table at full length and compressed, and its variants."""

from dataclasses import fields, replace
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


def schedule(opt: OptimizationParams | None = None, scale: float = 1.0, **repair: Any) -> Schedule:
    groups = opt or OptimizationParams(), GradiSegParams(), RepairParams(**repair)
    return Schedule(*groups).scaled(scale)


def mode(iteration: int, **changes: Any) -> str | None:
    return Schedule(OptimizationParams(), GradiSegParams(**changes), RepairParams()).neighbours(iteration)


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize(("fraction", "igd", "neighbours"), TABLE)
def test_phases_of_the_paper(scale: float, fraction: float, igd: bool, neighbours: str | None) -> None:
    whole = schedule(scale=scale)
    iteration = max(round(fraction * whole.opt.iterations), 1)
    assert whole.igd_is_active(iteration) == igd
    assert whole.neighbours(iteration) == neighbours


def test_a_tenth() -> None:
    tenth = schedule(scale=0.1)
    opt, gradiseg = tenth.opt, tenth.gradiseg
    assert (opt.iterations, opt.position_lr_max_steps, tenth.repair_until) == (3000, 3000, 2700)
    assert (opt.densify_from_iter, opt.densify_until_iter, tenth.sh_interval) == (50, 1200, 100)
    assert (gradiseg.igd_from_iter, gradiseg.igd_until_iter, gradiseg.la_knn_from_iter) == (1200, 1500, 1500)


@pytest.mark.parametrize("scale", [0.003, 0.2333, 1.0, 2.0])
def test_scaling_agrees_with_the_command_line_and_keeps_the_order(scale: float) -> None:
    before = OptimizationParams(schedule_scale=scale)
    after = schedule(before, scale)
    opt, gradiseg = after.opt, after.gradiseg
    assert opt.iterations == final_iteration(before.iterations, scale)
    boundaries = [gradiseg.igd_from_iter, gradiseg.igd_until_iter, gradiseg.la_knn_from_iter, opt.iterations]
    assert boundaries == sorted(boundaries)
    assert opt.schedule_scale == 1.0 and before.schedule_scale == scale and before.iterations == 30_000


def test_rates_thresholds_and_intervals_are_untouched() -> None:
    half = schedule(scale=0.5)
    opt, gradiseg = half.opt, half.gradiseg
    assert (opt.densification_interval, opt.opacity_reset_interval, gradiseg.igd_interval) == (100, 3000, 100)
    changed = {f.name for f in fields(opt) if getattr(opt, f.name) != getattr(OptimizationParams(), f.name)}
    assert not {name for name in changed if "lr_init" in name or "threshold" in name or "lambda" in name}
    assert opt.reg3d_interval == 5 and gradiseg.igd_std_factor == GradiSegParams().igd_std_factor


def test_zero_stays_zero() -> None:
    assert schedule(OptimizationParams(densify_until_iter=0), 0.1).opt.densify_until_iter == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_positive_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        schedule(scale=scale)


def test_variants_of_the_neighbours() -> None:
    assert {mode(i, igd=False, la_knn=False) for i in (1, 12_500, 30_000)} == {"global"}  # Gaussian Grouping
    assert mode(12_001, la_knn_from_iter=12_000) == "adaptive"  # the main text
    assert mode(13_000, igd=False) is None and mode(15_001, igd=False) == "adaptive"


@pytest.mark.parametrize(("first", "fewest"), [(2000, 6), (12_000, 5)])
@pytest.mark.parametrize("scale", [0.003, 0.13, 0.26, 0.334, 0.5, 1.0, 2.0])
def test_masks_are_repaired_before_igd_looks_and_never_while_opacities_heal(
    scale: float, first: int, fewest: int
) -> None:
    run = schedule(scale=scale, repair_from_iter=first)
    start, opt = run.repair.repair_from_iter, run.opt
    due = [i for i in range(1, opt.iterations + 1) if run.repair_is_due(i)]
    resets = range(opt.opacity_reset_interval, opt.densify_until_iter, opt.opacity_reset_interval)
    assert start == min(first, run.gradiseg.igd_from_iter)
    assert due[0] == next((r for r in resets if r < start < r + HEALING), start)
    assert not [(i, r) for i in due for r in resets if r < i < r + HEALING]
    assert len(due) >= fewest and due[-1] <= run.repair_until


def test_a_repair_goes_before_the_reset_of_the_same_iteration() -> None:
    for first, interval, turns in (
        (3000, 500, [3000, 4000, 4500, 5000, 5500, 6000]),
        (3500, 3000, [3000, 6000]),
    ):
        run = schedule(repair_from_iter=first, repair_interval=interval)
        assert [i for i in range(2501, 6001) if run.repair_is_due(i)] == turns


def test_no_repair_at_low_resolution_nor_before_it_is_overcome() -> None:
    for opt in (
        OptimizationParams(quarter_resolution_until_iter=14_500),
        OptimizationParams(half_resolution_until_iter=14_500),
    ):
        run = schedule(opt)
        due = [i for i in range(1, 30_001) if run.repair_is_due(i)]
        assert due == [18_000, 21_000, 24_000, 27_000]


def test_a_first_repair_after_igd_began_is_compressed_with_the_schedule() -> None:
    assert schedule(scale=0.1, repair_from_iter=20_000).repair.repair_from_iter == 2000


def test_the_resolution_rises_with_the_schedule() -> None:
    opt = OptimizationParams(quarter_resolution_until_iter=100, half_resolution_until_iter=300)
    assert [schedule(opt).halvings(i) for i in (1, 100, 101, 300, 301)] == [2, 2, 1, 1, 0]
    assert [schedule(opt, 0.1).halvings(i) for i in (10, 11, 30, 31)] == [2, 1, 1, 0]
    assert schedule().halvings(1) == 0


def test_boundary_steps_come_when_the_number_of_gaussians_is_settled() -> None:
    schedule = Schedule(OptimizationParams(), GradiSegParams(), RepairParams(boundary_interval=4))
    due = [iteration for iteration in range(1, 30_001) if schedule.boundary_is_due(iteration)]
    assert due[0] == 15_004 and due[-1] == 30_000 and len(due) == 3750
    plain = replace(schedule, gradiseg=GradiSegParams(igd=False))
    assert plain.boundary_is_due(12_004) and not plain.boundary_is_due(12_000)
    assert not any(
        map(replace(schedule, repair=RepairParams(boundary_interval=0)).boundary_is_due, (15_004, 30_000))
    )
