"""IGD against brute force: who is split, what is conserved, what is reset, and that nothing else changes."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from arguments import GradiSegParams, OptimizationParams, RepairParams
from gradiseg.igd import (
    CHILD_OPACITY,
    HALF_DEVIATION,
    HALF_MEAN,
    IdentityGradientDensification,
    directional_children,
    select_anomalous,
    split_axis,
)
from gradiseg.schedule import Schedule
from scene.gaussian_model import GaussianModel
from tests.gaussians import random_params, rows, trained_model
from utils.graphics import build_rotation

EXTENT = 1e6  # nothing is too large
RULE = {"threshold": 0.4, "std_factor": 1.0, "quantile": 0.8}


def strategy(opt: dict[str, Any] | None = None, **changes: Any) -> IdentityGradientDensification:
    schedule = Schedule(OptimizationParams(**(opt or {})), GradiSegParams(**changes), RepairParams())
    return IdentityGradientDensification(schedule)


def monitored_model(accum: list[float], views: list[float] | None = None) -> GaussianModel:
    model = trained_model(len(accum))
    model.state["identity_gradient_accum"] = torch.tensor(accum)[:, None]
    model.state["identity_gradient_denom"] = torch.tensor(views or [1.0] * len(accum))[:, None]
    return model


def brute_force(accum: list[float], denom: list[float], rule: str) -> list[bool]:
    seen = [i for i, views in enumerate(denom) if views > 0]
    score = {i: accum[i] if rule == "absolute" else accum[i] / denom[i] for i in seen}
    values = sorted(score.values())
    mean = sum(values) / len(values)
    limit = {
        "absolute": RULE["threshold"],
        "mean_std": mean + RULE["std_factor"] * math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)),
        "quantile": values[math.ceil(RULE["quantile"] * len(values)) - 1],
    }[rule]
    return [i in score and score[i] > limit for i in range(len(accum))]


@pytest.mark.parametrize("rule", ["absolute", "mean_std", "quantile"])
@pytest.mark.parametrize("seed", range(4))
def test_selection_equals_brute_force(rule: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    denom = rng.integers(0, 4, 40).astype(float)
    accum = np.where(denom > 0, rng.exponential(0.3, 40), 0.0).astype(np.float32).astype(float)
    mask = select_anomalous(
        torch.tensor(accum, dtype=torch.float64)[:, None], torch.tensor(denom)[:, None], rule, **RULE
    )
    assert mask.tolist() == brute_force(accum.tolist(), denom.tolist(), rule)
    assert 0 < int(mask.sum()) < 20


@pytest.mark.parametrize("rule", ["mean_std", "quantile"])
def test_relative_rules_ignore_the_scale_of_the_loss(rule: str) -> None:
    accum, denom = torch.rand(50, 1), torch.ones(50, 1)
    small = select_anomalous(accum, denom, rule, **RULE)
    assert torch.equal(small, select_anomalous(2.0**-20 * accum, denom, rule, **RULE))
    assert not select_anomalous(torch.ones(9, 1), torch.ones(9, 1), rule, **RULE).any()  # all alike: none


def test_std_is_that_of_the_population() -> None:
    accum, denom = (
        torch.tensor([[0.0], [0.0], [1.0]]),
        torch.ones(3, 1),
    )  # mean 0.33, std 0.47 (of a sample 0.58)
    mask = select_anomalous(accum, denom, "mean_std", **(RULE | {"std_factor": 1.3}))
    assert mask.tolist() == [False, False, True]


def test_nothing_seen_selects_nothing_and_unknown_rules_are_refused() -> None:
    assert not select_anomalous(torch.zeros(3, 1), torch.zeros(3, 1), "quantile", **RULE).any()
    with pytest.raises(ValueError, match="mean_std"):
        select_anomalous(torch.ones(3, 1), torch.ones(3, 1), "median", **RULE)


def test_accumulates_norms_of_visible_gaussians_inside_the_window() -> None:
    model, igd = monitored_model([0.0] * 3, [0.0] * 3), strategy()
    model.state["identity_gradient_denom"].zero_()
    gradient = torch.zeros(3, 1, 16)
    gradient[:, 0, :2] = torch.tensor([[3.0, 4.0], [1.0, 0.0], [float("inf"), 0.0]])
    model.params["obj_dc"].grad = 2.0 * gradient  # L_2d and L_3d
    package = {
        "identity_encodings": SimpleNamespace(grad=gradient),  # L_2d alone
        "visibility_filter": torch.tensor([True, False, True]),
        "is_masked": True,
    }
    for iteration in (12_000, 12_001, 15_000, 15_001):  # outside, inside, inside, outside
        igd.after_backward(model, package, iteration)
    assert model.state["identity_gradient_accum"].squeeze(1).tolist() == [2 * 5.0, 0.0, 0.0]
    assert model.state["identity_gradient_denom"].squeeze(1).tolist() == [2.0, 0.0, 2.0]


def test_a_view_without_a_mask_counts_nothing() -> None:
    model = monitored_model([1.0, 1.0])
    package = {
        "identity_encodings": SimpleNamespace(grad=torch.zeros(2, 1, 16)),  # as the rasterizer leaves it
        "is_masked": False,
        "visibility_filter": torch.ones(2, dtype=torch.bool),
    }
    strategy().after_backward(model, package, 12_050)
    assert model.state["identity_gradient_denom"].squeeze(1).tolist() == [1.0, 1.0]


def test_rounds_come_at_the_end_of_every_interval() -> None:
    igd = strategy(igd_from_iter=1205, igd_until_iter=1305, igd_interval=50)
    acted = [i for i in range(1200, 1400) if igd.step(monitored_model([1.0]), i, EXTENT)]
    assert acted == [1255, 1305]
    assert strategy(igd=False).step(monitored_model([1.0]), 12_100, EXTENT) == {}


@pytest.mark.parametrize("split", ["directional", "random"])
def test_a_round_replaces_the_anomalous_and_touches_nothing_else(split: str) -> None:
    model = monitored_model([0.1, 5.0, 0.2, 0.6, 9.0, 0.3])
    before = rows(model)
    igd = strategy(igd_rule="absolute", igd_grad_threshold=0.6, igd_split=split)
    assert igd.step(model, 12_100, EXTENT) == {"cloned": 0, "split": 2, "pruned": 0}
    after, survivors, parents = rows(model), torch.tensor([0, 2, 3, 5]), torch.tensor([1, 4, 1, 4])
    for name, value in before.items():
        assert torch.equal(after[name][:4], value[survivors]), name  # the unsplit keep their accumulator
        if not name.startswith("params/"):
            assert not after[name][4:].any(), name
        elif name.removeprefix("params/") in ("f_dc", "f_rest", "rotation", "obj_dc"):
            assert torch.equal(after[name][4:], value[parents]), name


def test_a_round_cuts_every_gaussian_across_its_own_running_gradient() -> None:
    parents = torch.arange(20) % 2 == 1
    model = monitored_model([5.0 * float(parent) for parent in parents])
    assert model.optimizer is not None
    moment = model.optimizer.state[model.params["xyz"]]["exp_avg"]
    before = model.params["xyz"].detach()[parents]
    deviation = model.get_scaling.detach()
    index, direction = split_axis(deviation, model.get_rotation.detach(), moment)
    strategy(igd_rule="absolute", igd_grad_threshold=1.0).step(model, 12_100, EXTENT)
    apart = (model.params["xyz"].detach()[10:20] - before) / HALF_MEAN  # (10, 3), positive sides
    torch.testing.assert_close(apart, (deviation.gather(1, index[:, None]) * direction)[parents])


def test_a_round_prunes_the_faint_and_not_the_large() -> None:
    model = monitored_model([0.0] * 4)
    with torch.no_grad():
        model.params["scaling"].fill_(math.log(0.05))
        model.params["scaling"][1, 2] = math.log(1.5)
        model.params["opacity"].fill_(0.0)
        model.params["opacity"][2] = -6.0
    survivors = model.params["xyz"].detach()[[0, 1, 3]]
    assert strategy().step(model, 12_100, 10.0) == {"cloned": 0, "split": 0, "pruned": 1}
    assert torch.equal(model.params["xyz"], survivors)


def test_cap_takes_the_most_anomalous_first() -> None:
    model = monitored_model([3.0, 5.0, 0.0, 5.0, 4.0])
    kept = model.params["xyz"].detach()[[0, 2, 4]]
    igd = strategy({"max_gaussians": 7}, igd_rule="absolute", igd_grad_threshold=1.0)
    assert igd.step(model, 12_100, EXTENT)["split"] == 2
    assert model.num_gaussians == 7 and torch.equal(model.params["xyz"].detach()[:3], kept)
    assert igd.step(model, 12_200, EXTENT)["split"] == 0


def test_split_axis_is_across_the_gradient_or_the_longest() -> None:
    params = random_params(20)
    deviation, axes = params["scaling"].exp(), build_rotation(params["rotation"])
    gradient = torch.randn(20, 3, generator=torch.Generator().manual_seed(3))
    gradient[0], gradient[1] = 0.0, float("nan")
    index, direction = split_axis(deviation, params["rotation"], gradient)
    for i in range(20):
        strength = [abs(float(gradient[i] @ axes[i, :, k])) * float(deviation[i, k]) for k in range(3)]
        expected = int(np.argmax(strength if i > 1 else deviation[i].numpy()))
        assert int(index[i]) == expected
        assert torch.equal(direction[i], axes[i, :, expected])


def test_directional_children_conserve_weight_mean_and_covariance() -> None:
    params = {name: value.double() for name, value in random_params(12).items()}
    mask = torch.arange(12) % 3 != 0
    children = directional_children(params, mask, torch.randn(12, 3, dtype=torch.float64))
    parents = params["xyz"][mask]
    first, second = children["xyz"].chunk(2)
    torch.testing.assert_close(0.5 * (first + second), parents)
    root = build_rotation(children["rotation"]) * children["scaling"].exp()[:, None, :]
    within = (root @ root.transpose(1, 2)).chunk(2)  # two of (8, 3, 3)
    offset = (first - parents)[:, :, None]
    covariance = 0.5 * (within[0] + within[1]) + offset @ offset.transpose(1, 2)
    parent_root = (build_rotation(params["rotation"]) * params["scaling"].exp()[:, None, :])[mask]
    torch.testing.assert_close(covariance, parent_root @ parent_root.transpose(1, 2))
    mass = torch.sigmoid(children["opacity"]) * children["scaling"].exp().prod(dim=1, keepdim=True)
    parent_mass = (torch.sigmoid(params["opacity"]) * params["scaling"].exp().prod(dim=1, keepdim=True))[mask]
    torch.testing.assert_close(mass[:8] + mass[8:], parent_mass)
    changed = {
        name
        for name, value in children.items()
        if not torch.equal(value, params[name][mask].repeat(2, *[1] * (value.dim() - 1)))
    }
    assert changed == {"xyz", "scaling", "opacity"}


def profile(opacity: float, child: float | None) -> np.ndarray:
    """Composited alpha along the split axis of a unit Gaussian, whole or as two of opacity `child`."""
    x = np.linspace(-6.0, 6.0, 4001)
    if child is None:
        return opacity * np.exp(-0.5 * x**2)
    halves = [child * np.exp(-0.5 * ((x - m) / HALF_DEVIATION) ** 2) for m in (HALF_MEAN, -HALF_MEAN)]
    return 1.0 - (1.0 - halves[0]) * (1.0 - halves[1])


@pytest.mark.parametrize("opacity", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_opacity_rule_renders_like_the_parent(opacity: float) -> None:
    parent = profile(opacity, None)

    def error(child: float) -> float:
        return float(np.linalg.norm(profile(opacity, child) - parent) / np.linalg.norm(parent))

    ours = CHILD_OPACITY * opacity
    assert error(ours) < 0.30
    assert (
        error(ours) < min(error(c) for c in np.linspace(0.0, 1.0, 2001)) + 1e-3
    )  # next to the best there is
    assert error(ours) < error(opacity) and error(ours) < error(1.0 - math.sqrt(1.0 - opacity))
    assert 0.949 < profile(opacity, ours).sum() / parent.sum() <= 1.0  # the mass, after compositing


def test_saturated_and_vanishing_opacities_stay_finite() -> None:
    params = random_params(2)
    params["opacity"] = torch.tensor([[60.0], [-100.0]])
    children = directional_children(params, torch.tensor([True, True]), torch.zeros(2, 3))
    assert children["opacity"].isfinite().all()


def test_the_limit_does_not_depend_on_the_number_of_threads() -> None:
    score = torch.rand(100_003, 1, generator=torch.Generator().manual_seed(3))
    chosen = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        chosen.append(
            select_anomalous(
                score, torch.ones_like(score), "mean_std", threshold=0.0, std_factor=1.0, quantile=0.5
            )
        )
    torch.set_num_threads(threads)
    assert torch.equal(chosen[0], chosen[1]) and torch.equal(chosen[0], chosen[2])
