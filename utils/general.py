"""Scalar helpers of the optimisation: sigmoid and its inverse, learning-rate decay, seeds."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable


class Sigmoid(torch.autograd.Function):
    """1 / (1 + exp(-x)) through `Sigmoid.apply`, the same bits for any number of threads.

    torch.sigmoid's are not: it rounds the last few elements of every thread's share in another way. A logit
    so low that exp overflows gives 0, and no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.neg().exp_().add_(1.0).reciprocal_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dL_dy: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return (1.0 - y).mul_(y).mul_(dL_dy)


def inverse_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Logit of x in (0, 1)."""
    return torch.log(x / (1.0 - x))


def get_expon_lr_func(
    lr_init: float,
    lr_final: float,
    max_steps: int = 1_000_000,
) -> Callable[[int], float]:
    """Learning rate, log-linear from `lr_init` at step 0 to `lr_final` at `max_steps`, then constant.

    Zero rates stay zero.
    """

    def rate(step: int) -> float:
        if step < 0 or lr_init == 0.0 or lr_final == 0.0:
            return 0.0
        done = min(step / max_steps, 1.0)
        return math.exp((1.0 - done) * math.log(lr_init) + done * math.log(lr_final))

    return rate


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The states of all random generators as tensors, numbers and strings."""
    numpy_state = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": numpy_state | {"state": {"key": keys, "pos": int(numpy_state["state"]["pos"])}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set all random generators to `random_state()`; those of GPUs only where their number is the same."""
    random.setstate(state["python"])
    keys = state["numpy"]["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(state["numpy"] | {"state": {"key": keys, "pos": state["numpy"]["state"]["pos"]}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
