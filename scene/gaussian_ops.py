"""The operations that add, remove or reset Gaussians.

Invariant: after any sequence of these operations every parameter, both Adam moments of every parameter and
every per-Gaussian state tensor have N rows, row i of each belongs to Gaussian i, the rows of surviving
Gaussians are bitwise what they were, and the moments and state of new Gaussians are zero. `rebuild` is the
only function that changes N, so a tensor added to `GaussianModel.params` or `GaussianModel.state` follows
without a line here.

A rebuilt parameter is a new `nn.Parameter` in the same optimizer group: gradients of the old one are dropped,
so step the optimizer first or accept that this iteration's gradient is lost (3DGS does).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from scene.gaussian_model import GaussianModel
from utils.general import inverse_sigmoid


def select(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Copies of `rows` ((N,) bool mask or (M,) indices) of every tensor, detached."""
    return {name: tensor.detach()[rows] for name, tensor in tensors.items()}


def concatenate(*parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Row-wise concatenation of parameter dictionaries with the same keys."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def rebuild(model: GaussianModel, kept: Tensor | None, new: Mapping[str, Tensor] | None = None) -> None:
    """Turn every per-Gaussian tensor t into `cat(t[kept], new rows)`.

    kept: (N,) bool mask or (M,) int64 indices of the surviving Gaussians, in their new order; None keeps all.
    new: parameters of the added Gaussians (all keys of `model.params`); their moments and state are zero.

    Raises: ValueError where `new` lacks a parameter or has one the model does not know.
    """
    if new is not None and new.keys() != model.params.keys():
        raise ValueError(f"new Gaussians need the parameters {sorted(model.params)}, not {sorted(new)}")
    added = 0 if new is None else new["xyz"].shape[0]

    def with_zeros(tensor: Tensor) -> Tensor:
        return _rows(tensor, kept, tensor.new_zeros(added, *tensor.shape[1:]))

    for name, parameter in list(model.params.items()):
        fresh = parameter.detach()[:0] if new is None else new[name]
        _replace_parameter(model, name, _rows(parameter.detach(), kept, fresh), with_zeros)
    model.state = {name: with_zeros(tensor) for name, tensor in model.state.items()}


def keep(model: GaussianModel, mask: Tensor) -> None:
    """Remove the Gaussians outside `mask` ((N,) bool)."""
    rebuild(model, mask)


def append(model: GaussianModel, new: Mapping[str, Tensor]) -> None:
    """Add Gaussians with the parameters `new`."""
    rebuild(model, None, new)


def split(model: GaussianModel, mask: Tensor, children: Mapping[str, Tensor]) -> None:
    """Replace the Gaussians of `mask` ((N,) bool) by `children`, which are appended."""
    rebuild(model, ~mask, children)


def reset_opacity(model: GaussianModel, ceiling: float) -> None:
    """Lower every opacity above `ceiling` to it and forget the opacity's Adam moments.

    Without forgetting, the momentum of thousands of steps would lift the opacities back at once.
    """
    opacity = model.params["opacity"]
    limit = float(inverse_sigmoid(torch.tensor(ceiling, device="cpu")))
    lowered = opacity.detach().clamp(
        max=limit
    )  # in logits, so that opacities below the ceiling keep their bits
    _replace_parameter(model, "opacity", lowered, torch.zeros_like)


def first_moment(model: GaussianModel, name: str) -> Tensor:
    """Adam's running mean of the gradient of parameter `name`, in its shape; zeros before the first step."""
    parameter = model.params[name]
    moments = {} if model.optimizer is None else model.optimizer.state.get(parameter, {})
    return moments.get("exp_avg", torch.zeros_like(parameter.detach()))


def _rows(tensor: Tensor, kept: Tensor | None, fresh: Tensor) -> Tensor:
    """`cat(tensor[kept], fresh)` in the dtype and on the device of `tensor`."""
    old = tensor if kept is None else tensor[kept]
    return torch.cat((old, fresh.detach().to(tensor)))


def _replace_parameter(
    model: GaussianModel, name: str, value: Tensor, moment: Callable[[Tensor], Tensor]
) -> None:
    """Put `value` in the place of parameter `name` everywhere; `moment` maps its Adam moments."""
    old, parameter = model.params[name], nn.Parameter(value)
    model.params[name] = parameter
    if model.optimizer is None:
        return
    model.optimizer_group(name)["params"] = [parameter]
    entries = model.optimizer.state.pop(old, None)
    if entries is not None:  # a parameter that never had a gradient has no moments
        model.optimizer.state[parameter] = {
            key: moment(entry) if isinstance(entry, Tensor) and entry.shape == old.shape else entry
            for key, entry in entries.items()
        }
