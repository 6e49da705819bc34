"""The invariant of gaussian_ops: one row per Gaussian everywhere, survivors bitwise, newcomers blank."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scene import gaussian_ops as ops
from scene.gaussian_model import GaussianModel
from tests.gaussians import random_params, rows, step_randomly, trained_model

NO_HISTORY = ("state/", "exp_avg/", "exp_avg_sq/")


def check_rows(model: GaussianModel, expected: dict[str, torch.Tensor]) -> None:
    found = rows(model)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert model.optimizer is not None
    grouped = {group["name"]: group["params"] for group in model.optimizer.param_groups}
    assert {name: [id(p)] for name, p in model.params.items()} == {
        name: [id(p) for p in params] for name, params in grouped.items()
    }
    assert len(model.optimizer.state) == len(model.params)  # no moments of dead parameters linger


def with_newcomers(kept: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`kept` rows followed by newcomers, whose moments and statistics are zero."""
    count, expected = len(new["xyz"]), {}
    for name, value in kept.items():
        fresh = value.new_zeros(count, *value.shape[1:])
        if not name.startswith(NO_HISTORY):
            fresh = new[name.removeprefix("params/")]
        expected[name] = torch.cat((value, fresh))
    return expected


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["keep", "append", "split"]), st.integers(0, 1000)), max_size=5),
)
def test_any_sequence_keeps_survivors_and_clears_newcomers(sequence: list[tuple[str, int]]) -> None:
    model = trained_model(8)
    for operation, seed in sequence:
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(model.num_gaussians, generator=generator) < 0.6
        new, before = random_params(seed % 4, seed), rows(model)
        if operation == "keep":
            ops.keep(model, mask)
            expected = {name: value[mask] for name, value in before.items()}
        elif operation == "append":
            ops.append(model, new)
            expected = with_newcomers(before, new)
        else:
            ops.split(model, mask, new)
            expected = with_newcomers({name: value[~mask] for name, value in before.items()}, new)
        check_rows(model, expected)
        step_randomly(model, generator)  # the optimizer still moves what the model holds


def test_indices_reorder() -> None:
    model, order = trained_model(5), torch.tensor([4, 0, 2])
    before = rows(model)
    ops.rebuild(model, order)
    check_rows(model, {name: value[order] for name, value in before.items()})


def test_step_count_survives_so_that_bias_correction_does_not_restart() -> None:
    model = trained_model(5)
    ops.keep(model, torch.tensor([True, False, True, True, False]))
    assert model.optimizer is not None
    assert int(model.optimizer.state[model.params["xyz"]]["step"]) == 2


def test_a_parameter_without_moments_stays_without() -> None:
    model = trained_model(5)
    assert model.optimizer is not None
    del model.optimizer.state[model.params["f_rest"]]
    ops.append(model, random_params(2))
    assert model.params["f_rest"] not in model.optimizer.state
    assert torch.equal(ops.first_moment(model, "f_rest"), torch.zeros(7, 15, 3))


def test_works_before_the_optimizer_exists() -> None:
    model = GaussianModel(3)
    model.set_params(random_params(4))
    ops.split(model, torch.tensor([True, False, False, False]), random_params(2))
    ops.reset_opacity(model, 0.01)
    assert model.num_gaussians == 5


def test_reset_opacity_lowers_only_what_is_above() -> None:
    model = trained_model(6)
    with torch.no_grad():
        model.params["opacity"][:2] = -7.0
    before = rows(model)
    ops.reset_opacity(model, 0.01)
    after = rows(model)
    assert model.get_opacity.max() <= 0.01 + 1e-7
    assert torch.equal(after["params/opacity"][:2], before["params/opacity"][:2])
    for key in ("exp_avg/opacity", "exp_avg_sq/opacity"):
        assert not after[key].any()
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {"params/opacity", "exp_avg/opacity", "exp_avg_sq/opacity"}


def test_incomplete_newcomers_are_refused_before_anything_changes() -> None:
    model = trained_model(3)
    new, before = random_params(1), rows(model)
    del new["rotation"]
    with pytest.raises(ValueError, match="rotation"):
        ops.append(model, new)
    check_rows(model, before)
