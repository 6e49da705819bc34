"""The phase table at full length and compressed, and its variants."""

from dataclasses import fields
from typing import Any

import pytest

from arguments import GradiSegParams, OptimizationParams, RepairParams, final_iteration
from gradiseg.schedule import (
    HEALING,
    identity_neighbours_mode,
    phase,
    repair_is_due,
    scaled_schedule,
)

TABLE = [  # fraction of the run, phase, neighbours of L_3d
    (1e-4, 1, "global"),
    (0.4, 1, "global"),
    (0.4 + 1e-3, 2, None),
    (0.5, 2, None),
    (0.5 + 1e-3, 3, "adaptive"),
    (1.0, 3, "adaptive"),
]


def mode(iteration: int, **changes: Any) -> str | None:
    return identity_neighbours_mode(iteration, OptimizationParams(), GradiSegParams(**changes))


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize(("fraction", "expected_phase", "neighbours"), TABLE)
def test_phases_of_the_paper(
    scale: float, fraction: float, expected_phase: int, neighbours: str | None
) -> None:
    opt, gradiseg, _ = scaled_schedule(OptimizationParams(), GradiSegParams(), RepairParams(), scale)
    iteration = max(round(fraction * opt.iterations), 1)
    assert phase(iteration, opt, gradiseg) == expected_phase
    assert identity_neighbours_mode(iteration, opt, gradiseg) == neighbours


def test_a_tenth() -> None:
    opt, gradiseg, _ = scaled_schedule(OptimizationParams(), GradiSegParams(), RepairParams(), 0.1)
    assert (opt.iterations, opt.position_lr_max_steps, opt.reg3d_until_iter) == (3000, 3000, 3000)
    assert (opt.densify_from_iter, opt.densify_until_iter, opt.sh_interval) == (50, 1200, 100)
    assert (gradiseg.igd_from_iter, gradiseg.igd_until_iter, gradiseg.la_knn_from_iter) == (1200, 1500, 1500)


@pytest.mark.parametrize("scale", [0.003, 0.2333, 1.0, 2.0])
def test_scaling_agrees_with_the_command_line_and_keeps_the_order(scale: float) -> None:
    before = OptimizationParams(schedule_scale=scale)
    opt, gradiseg, _ = scaled_schedule(before, GradiSegParams(), RepairParams(), scale)
    assert opt.iterations == final_iteration(before.iterations, scale)
    boundaries = [gradiseg.igd_from_iter, gradiseg.igd_until_iter, gradiseg.la_knn_from_iter, opt.iterations]
    assert boundaries == sorted(boundaries)
    assert opt.schedule_scale == 1.0 and before.schedule_scale == scale and before.iterations == 30_000


def test_rates_thresholds_and_intervals_are_untouched() -> None:
    opt, gradiseg, _ = scaled_schedule(OptimizationParams(), GradiSegParams(), RepairParams(), 0.5)
    assert (opt.densification_interval, opt.opacity_reset_interval, gradiseg.igd_interval) == (100, 3000, 100)
    changed = {f.name for f in fields(opt) if getattr(opt, f.name) != getattr(OptimizationParams(), f.name)}
    assert not {name for name in changed if "lr_init" in name or "threshold" in name or "lambda" in name}
    assert opt.reg3d_interval == 5 and gradiseg.igd_std_factor == GradiSegParams().igd_std_factor


def test_zero_stays_zero() -> None:
    opt, *_ = scaled_schedule(OptimizationParams(reg3d_until_iter=0), GradiSegParams(), RepairParams(), 0.1)
    assert opt.reg3d_until_iter == 0
    assert identity_neighbours_mode(1, opt, GradiSegParams()) is None


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_positive_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        scaled_schedule(OptimizationParams(), GradiSegParams(), RepairParams(), scale)


def test_variants_of_the_neighbours() -> None:
    assert {mode(i, igd=False, la_knn=False) for i in (1, 12_500, 30_000)} == {"global"}  # Gaussian Grouping
    assert mode(12_001, la_knn_from_iter=12_000) == "adaptive"  # the main text
    assert mode(13_000, igd=False) is None and mode(15_001, igd=False) == "adaptive"


def test_without_igd_there_is_no_second_phase() -> None:
    opt, gradiseg = OptimizationParams(densify_until_iter=10_000), GradiSegParams(igd=False)
    assert [phase(i, opt, gradiseg) for i in (10_000, 10_001, 13_000)] == [1, 3, 3]


@pytest.mark.parametrize(("first", "fewest"), [(2000, 6), (12_000, 5)])
@pytest.mark.parametrize("scale", [0.003, 0.13, 0.26, 0.334, 0.5, 1.0, 2.0])
def test_masks_are_repaired_before_igd_looks_and_never_while_opacities_heal(
    scale: float, first: int, fewest: int
) -> None:
    opt, gradiseg, repair = scaled_schedule(
        OptimizationParams(), GradiSegParams(), RepairParams(repair_from_iter=first), scale
    )
    due = [i for i in range(1, opt.iterations + 1) if repair_is_due(i, opt, repair)]
    resets = range(opt.opacity_reset_interval, opt.densify_until_iter, opt.opacity_reset_interval)
    assert repair.repair_from_iter == min(first, gradiseg.igd_from_iter)
    assert due[0] == next(
        (r for r in resets if r < repair.repair_from_iter < r + HEALING), repair.repair_from_iter
    )
    assert not [(i, r) for i in due for r in resets if r < i < r + HEALING]
    assert len(due) >= fewest


def test_a_repair_goes_before_the_reset_of_the_same_iteration() -> None:
    opt, repair = OptimizationParams(), RepairParams(repair_from_iter=3000, repair_interval=500)
    due = [i for i in range(2501, 6001) if repair_is_due(i, opt, repair)]
    assert due == [3000, 4000, 4500, 5000, 5500, 6000]
    repair = RepairParams(repair_from_iter=3500, repair_interval=3000)
    assert [i for i in range(2501, 6001) if repair_is_due(i, opt, repair)] == [3000, 6000]


def test_a_first_repair_after_igd_began_is_compressed_with_the_schedule() -> None:
    repair = scaled_schedule(
        OptimizationParams(), GradiSegParams(), RepairParams(repair_from_iter=20_000), 0.1
    )[2]
    assert repair.repair_from_iter == 2000
