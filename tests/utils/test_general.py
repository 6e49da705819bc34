"""Learning-rate decay, inverse sigmoid, seeds, spherical harmonics of degree 0."""

import random

import numpy as np
import pytest
import torch

from utils.general import Sigmoid, get_expon_lr_func, inverse_sigmoid, seed_everything
from utils.sh import RGB2SH, SH2RGB


def test_the_rate_falls_log_linearly_and_then_stays() -> None:
    rate = get_expon_lr_func(1e-2, 1e-6, max_steps=100)
    assert rate(0) == pytest.approx(1e-2) and rate(50) == pytest.approx(1e-4)
    assert rate(100) == rate(500) == pytest.approx(1e-6)


def test_a_zero_rate_stays_zero() -> None:
    assert get_expon_lr_func(0.0, 1e-6, max_steps=10)(3) == 0.0


def test_inverse_sigmoid_inverts() -> None:
    x = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(torch.sigmoid(inverse_sigmoid(x)), x)


def test_the_sigmoid_has_its_derivative_and_no_nan_far_out() -> None:
    x = torch.linspace(-8, 8, 33, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(Sigmoid.apply(x), torch.sigmoid(x))
    assert torch.autograd.gradcheck(Sigmoid.apply, x)
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    Sigmoid.apply(far).sum().backward()
    assert far.grad is not None and torch.equal(far.grad, torch.zeros(2))


def test_equal_seeds_give_equal_draws_everywhere() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_colour_and_coefficient_invert_each_other() -> None:
    colour = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SH2RGB(RGB2SH(colour)), colour)
    assert RGB2SH(0.5) == 0.0
