"""3DGS's densification on hand-made gradients: who is cloned, split, pruned, and when."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from arguments import OptimizationParams
from scene.densification import DefaultDensification, limit_growth, random_children
from scene.gaussian_model import GaussianModel
from tests.gaussians import random_params, rows, trained_model
from utils.graphics import build_rotation

EXTENT = 10.0  # clone up to a scale of 0.1, prune above 1
SMALL, LARGE, HUGE = 0.05, 0.5, 1.5


def options(**changes: Any) -> OptimizationParams:
    return OptimizationParams(densify_from_iter=500, densify_until_iter=12_000, **changes)


def model_with(scales: list[float], gradients: list[float], opacity: float = 2.0) -> GaussianModel:
    """Gaussians of the given longest scales and mean screen-space gradients (over two views)."""
    model = trained_model(len(scales))
    with torch.no_grad():
        model.params["scaling"][:] = torch.tensor(scales).log()[:, None]
        model.params["opacity"].fill_(opacity)
    for name in model.state:
        model.state[name].zero_()
    model.state["xyz_gradient_accum"] += 2 * torch.tensor(gradients)[:, None]
    model.state["denom"] += 2
    return model


def package(gradient: torch.Tensor, visible: list[bool]) -> dict[str, Any]:
    return {
        "viewspace_points": SimpleNamespace(grad=gradient),
        "visibility_filter": torch.tensor(visible),
    }


def test_statistics_count_visible_views_only() -> None:
    model = model_with([SMALL] * 3, [0.0] * 3)
    model.state["denom"].zero_()
    strategy = DefaultDensification(options())
    gradient = torch.tensor([[3.0, 4.0, 99.0], [1.0, 0.0, 0.0], [float("nan"), 0.0, 0.0]])
    strategy.after_backward(model, package(gradient, [True, False, True]), 600)
    strategy.after_backward(model, package(gradient, [True, True, False]), 601)
    assert model.state["xyz_gradient_accum"].squeeze(1).tolist() == [10.0, 1.0, 0.0]
    assert model.state["denom"].squeeze(1).tolist() == [2.0, 1.0, 1.0]
    strategy.after_backward(model, package(gradient, [True] * 3), 12_000)
    assert model.state["denom"].squeeze(1).tolist() == [2.0, 1.0, 1.0]  # the window is closed


def test_small_ones_are_cloned_and_large_ones_split() -> None:
    model = model_with([SMALL, LARGE, SMALL, LARGE], [1.0, 1.0, 0.0, 0.0])
    before = rows(model)
    report = DefaultDensification(options()).step(model, 600, EXTENT)
    after = rows(model)
    assert report == {"cloned": 1, "split": 1, "pruned": 0}
    survivors = torch.tensor([0, 2, 3])  # then the clone of 0 and the two children of 1
    for name, value in before.items():
        if not name.startswith("state/"):
            assert torch.equal(after[name][:3], value[survivors]), name
        if name.startswith("params/"):
            assert torch.equal(after[name][3], value[0]), name
    scaling = model.get_scaling.detach()
    torch.testing.assert_close(scaling[4:], torch.full((2, 3), LARGE / 1.6))
    assert all(not model.state[name].any() for name in ("xyz_gradient_accum", "denom"))
    assert not after["exp_avg/xyz"][3:].any()


def test_acts_only_on_schedule() -> None:
    strategy = DefaultDensification(options(opacity_reset_interval=3000))
    for iteration in (500, 650, 12_000, 12_100):
        assert strategy.step(model_with([SMALL], [1.0]), iteration, EXTENT) == {}
    assert strategy.step(model_with([SMALL], [1.0]), 11_900, EXTENT)["cloned"] == 1


def test_pruning_of_large_ones_waits_for_the_first_opacity_reset() -> None:
    strategy = DefaultDensification(options(opacity_reset_interval=3000))
    for iteration, pruned in ((3000, 1), (3100, 2)):
        model = model_with([SMALL, HUGE, SMALL], [0.0] * 3)
        with torch.no_grad():
            model.params["opacity"][2] = -6.0  # 0.0025
        assert strategy.step(model, iteration, EXTENT)["pruned"] == pruned


@pytest.mark.parametrize(
    ("iteration", "white", "reset"),
    [
        (3000, False, True),
        (2999, True, False),
        (500, True, True),
        (500, False, False),
        (12_000, False, False),
    ],
)
def test_opacity_resets(iteration: int, white: bool, reset: bool) -> None:
    model = model_with([SMALL], [0.0])
    DefaultDensification(options(), white_background=white).step(model, iteration, EXTENT)
    assert bool(model.get_opacity.max() < 0.011) == reset


def test_cap_takes_the_highest_gradients_first() -> None:
    model = model_with([SMALL, SMALL, LARGE, LARGE], [1.0, 3.0, 2.0, 1.0])
    report = DefaultDensification(options(max_gaussians=6)).step(model, 600, EXTENT)
    assert report == {"cloned": 1, "split": 1, "pruned": 0} and model.num_gaussians == 6
    report = DefaultDensification(options(max_gaussians=3)).step(model, 700, EXTENT)
    assert report == {"cloned": 0, "split": 0, "pruned": 0}  # over the cap: no growth, no forced pruning


def test_limit_growth_breaks_ties_by_index() -> None:
    candidates = torch.tensor([False, True, True, True, True])
    score = torch.tensor([9.0, 1.0, 2.0, 1.0, 1.0])
    assert limit_growth(candidates, score, 3).tolist() == [False, True, True, True, False]
    assert limit_growth(candidates, score, None) is candidates
    many = torch.randint(0, 5, (3000,), generator=torch.Generator().manual_seed(0)).float()
    chosen = limit_growth(many > 0, many, 1000).nonzero().squeeze(1).tolist()
    assert chosen == sorted(sorted(range(3000), key=lambda i: -many[i].item())[:1000])


def test_random_children_are_drawn_from_their_parent() -> None:
    params = random_params(2)
    params["scaling"] = torch.tensor([[0.1, 1.0, 3.0], [1.0, 1.0, 1.0]]).log()
    params = {name: value.repeat_interleave(4000, dim=0) for name, value in params.items()}
    torch.manual_seed(0)
    children = random_children(params, torch.arange(8000) < 4000)
    offset = children["xyz"] - params["xyz"][0]  # (8000, 3)
    rotation = build_rotation(params["rotation"][:1])[0]
    local = offset @ rotation  # in the parent's own axes
    torch.testing.assert_close(local.std(dim=0), torch.tensor([0.1, 1.0, 3.0]), rtol=0.05, atol=0.0)
    torch.testing.assert_close(children["scaling"][0].exp(), torch.tensor([0.1, 1.0, 3.0]) / 1.6)
    assert torch.equal(children["obj_dc"], params["obj_dc"][:1].expand(8000, -1, -1))


def test_nobody_left_to_grow_is_no_error() -> None:
    model = model_with([SMALL, SMALL], [0.0, float("nan")])
    assert DefaultDensification(options()).step(model, 600, EXTENT) == {"cloned": 0, "split": 0, "pruned": 0}
