"""The phase table at full length and compressed, and its variants."""

from dataclasses import fields
from typing import Any

import pytest

from arguments import GradiSegParams, OptimizationParams, final_iteration
from gradiseg.schedule import identity_neighbours_mode, phase, scaled_schedule

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
    opt, gradiseg = scaled_schedule(OptimizationParams(), GradiSegParams(), scale)
    iteration = max(round(fraction * opt.iterations), 1)
    assert phase(iteration, opt, gradiseg) == expected_phase
    assert identity_neighbours_mode(iteration, opt, gradiseg) == neighbours


def test_a_tenth() -> None:
    opt, gradiseg = scaled_schedule(OptimizationParams(), GradiSegParams(), 0.1)
    assert (opt.iterations, opt.position_lr_max_steps, opt.reg3d_until_iter) == (3000, 3000, 3000)
    assert (opt.densify_from_iter, opt.densify_until_iter, opt.sh_interval) == (50, 1200, 100)
    assert (gradiseg.igd_from_iter, gradiseg.igd_until_iter, gradiseg.la_knn_from_iter) == (1200, 1500, 1500)


@pytest.mark.parametrize("scale", [0.003, 0.2333, 1.0, 2.0])
def test_scaling_agrees_with_the_command_line_and_keeps_the_order(scale: float) -> None:
    before = OptimizationParams(schedule_scale=scale)
    opt, gradiseg = scaled_schedule(before, GradiSegParams(), scale)
    assert opt.iterations == final_iteration(before.iterations, scale)
    boundaries = [gradiseg.igd_from_iter, gradiseg.igd_until_iter, gradiseg.la_knn_from_iter, opt.iterations]
    assert boundaries == sorted(boundaries)
    assert opt.schedule_scale == 1.0 and before.schedule_scale == scale and before.iterations == 30_000


def test_rates_thresholds_and_intervals_are_untouched() -> None:
    opt, gradiseg = scaled_schedule(OptimizationParams(), GradiSegParams(), 0.5)
    assert (opt.densification_interval, opt.opacity_reset_interval, gradiseg.igd_interval) == (100, 3000, 100)
    changed = {f.name for f in fields(opt) if getattr(opt, f.name) != getattr(OptimizationParams(), f.name)}
    assert not {name for name in changed if "lr_init" in name or "threshold" in name or "lambda" in name}
    assert opt.reg3d_interval == 5 and gradiseg.igd_std_factor == GradiSegParams().igd_std_factor


def test_zero_stays_zero() -> None:
    opt, _ = scaled_schedule(OptimizationParams(reg3d_until_iter=0), GradiSegParams(), 0.1)
    assert opt.reg3d_until_iter == 0
    assert identity_neighbours_mode(1, opt, GradiSegParams()) is None


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_positive_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        scaled_schedule(OptimizationParams(), GradiSegParams(), scale)


def test_variants_of_the_neighbours() -> None:
    assert {mode(i, igd=False, la_knn=False) for i in (1, 12_500, 30_000)} == {"global"}  # Gaussian Grouping
    assert mode(12_001, la_knn_from_iter=12_000) == "adaptive"  # the main text
    assert mode(13_000, igd=False) is None and mode(15_001, igd=False) == "adaptive"


def test_without_igd_there_is_no_second_phase() -> None:
    opt, gradiseg = OptimizationParams(densify_until_iter=10_000), GradiSegParams(igd=False)
    assert [phase(i, opt, gradiseg) for i in (10_000, 10_001, 13_000)] == [1, 3, 3]
