"""Adam (Kingma & Ba 2015) over all parameters in one call, with the state of torch.optim.Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fused_losses import _C, cuda

# Options of torch.optim.Adam that this one lacks, at their neutral values: a state_dict loads in either.
_NEUTRAL = {
    "weight_decay": 0,
    "amsgrad": False,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "decoupled_weight_decay": False,
}
_UNSUPPORTED = ("weight_decay", "amsgrad", "maximize", "capturable", "differentiable")


class Adam(torch.optim.Optimizer):
    """torch.optim.Adam without weight decay and AMSGrad, for contiguous float32 parameters on one device.

    State per parameter: `step` (scalar tensor), `exp_avg`, `exp_avg_sq`. Either optimizer loads the other's
    state_dict(). Parameters without a gradient are skipped.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, **_NEUTRAL})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])
        for parameter in self.param_groups[-1]["params"]:
            _check_tensor("params", parameter, parameter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            _check_group(group)
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None, *, visible: Tensor | None = None
    ) -> float | None:
        """One update of all parameters.

        visible (N,) bool: parameters of first dimension N change only in the rows where it is True; the other
        rows keep their values and moments. `step`, the age in the bias correction, counts for all rows.

        Raises:
            ValueError: a gradient, moment or mask of another dtype, device or shape than its parameter needs.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if visible is not None:
            visible = _checked_mask(visible)
        batch = _Batch(visible)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    batch.add(parameter, self._advanced_state(parameter), group)
        batch.run()
        return loss

    def _advanced_state(self, parameter: Tensor) -> dict[str, Any]:
        """The state of a parameter, created on first use, its step counted on."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0, device="cpu")  # as in torch.optim.Adam: read without a wait
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        return state


class _Batch:
    """The flat lists that the kernel takes, and the tensors that must outlive the call."""

    def __init__(self, visible: Tensor | None) -> None:
        self.visible = visible
        self.pointers: list[int] = []
        self.sizes: list[int] = []
        self.settings: list[float] = []
        self._alive: list[Tensor] = []
        self._device: torch.device | None = None if visible is None else visible.device

    def run(self) -> None:
        if self._device is not None and self._device.type == "cuda":
            cuda.adam(self.pointers, self.sizes, self.settings, self._device)
        else:
            _C.adam(self.pointers, self.sizes, self.settings, torch.get_num_threads())

    def add(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            raise ValueError("grad: must be dense, not sparse.")
        self._device = self._device or parameter.device
        if parameter.device != self._device:
            raise ValueError(f"params: must be on one device, not on {parameter.device} and {self._device}.")
        gradient = gradient.contiguous()
        _check_tensor("grad", gradient, parameter)
        _check_tensor("params", parameter, parameter)
        _check_tensor("exp_avg", state["exp_avg"], parameter)
        _check_tensor("exp_avg_sq", state["exp_avg_sq"], parameter)

        rows = parameter.shape[0] if parameter.dim() else 1
        mask = 0
        if self.visible is not None and parameter.shape[:1] == self.visible.shape and parameter.numel():
            mask = self.visible.data_ptr()
        tensors = (parameter, gradient, state["exp_avg"], state["exp_avg_sq"])
        self.pointers += [*(t.data_ptr() for t in tensors), mask]
        self.sizes += [rows, parameter.numel() // max(rows, 1)]
        self.settings += [
            float(group["lr"]),
            *map(float, group["betas"]),
            float(group["eps"]),
            float(state["step"]),
        ]
        self._alive.append(gradient)


def _check_group(group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"betas: must lie in [0, 1), not {group['betas']}.")
    if not (group["lr"] >= 0 and group["eps"] >= 0):
        raise ValueError(f"lr, eps: must not be negative, not {group['lr']}, {group['eps']}.")
    for key in _UNSUPPORTED:
        if group.get(key):
            raise ValueError(
                f"{key}: {group[key]!r} is not supported by fused_losses.Adam, use torch.optim.Adam."
            )


def _check_tensor(name: str, tensor: Tensor, parameter: Tensor) -> None:
    if tensor.is_cuda:
        cuda.check_device(tensor.device)
    if (
        tensor.dtype != torch.float32
        or tensor.device.type not in ("cpu", "cuda")
        or tensor.device != parameter.device
    ):
        raise ValueError(
            f"{name}: must be float32 on the CPU or a CUDA GPU, with its parameter, "
            f"not {tensor.dtype} on {tensor.device}."
        )
    if tensor.shape != parameter.shape:
        raise ValueError(
            f"{name}: must have its parameter's shape {tuple(parameter.shape)}, not {tuple(tensor.shape)}."
        )
    if not tensor.is_contiguous():
        raise ValueError(f"{name}: must be contiguous.")


def _checked_mask(visible: Tensor) -> Tensor:
    if visible.dtype != torch.bool or visible.dim() != 1:
        raise ValueError(
            f"visible: must be a bool mask of shape (N,), "
            f"not {visible.dtype} of shape {tuple(visible.shape)} on {visible.device}."
        )
    return visible.contiguous()
