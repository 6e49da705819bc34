"""Baking: some parameters of some Gaussians are trained on pictures, and everything else is held."""

from collections.abc import Callable, Mapping, Sequence

import torch
from fused_losses import Adam, l1_ssim
from torch import Tensor, nn

from gaussian_renderer import render
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera

LAMBDA_DSSIM = 0.2  # as 3DGS trains

Told = Callable[[float], None]  # told the share that is done; may raise to stop


def part(told: Told, start: float, end: float) -> Told:
    """Told of a part of the work, which goes from the share `start` of the whole to `end`."""
    return lambda share: told(start + (end - start) * share)


def bake(
    model: LabelledModel,
    chosen: Tensor,
    rates: Mapping[str, float],
    targets: Sequence[tuple[Camera, Tensor]],
    rounds: int,
    told: Told,
) -> LabelledModel:
    """The model with the parameters named in `rates` (learning rates) of the Gaussians `chosen` (N,) trained.

    targets: views and what they shall show, (3, H, W) uint8; each is shown once in every pass, in random
    order with a fixed seed. `told` hears after every round.
    """
    drawn = model.model()
    fixed = {name: tensor.detach() for name, tensor in drawn.params.items()}
    free = {name: nn.Parameter(fixed[name][chosen].clone()) for name in rates}
    groups = [{"params": [free[name]], "lr": rate} for name, rate in rates.items()]
    optimizer = Adam(groups, lr=0.0, eps=1e-15)
    generator = torch.Generator().manual_seed(0)
    rows = chosen.nonzero().flatten()
    order: list[int] = []
    for step in range(rounds):
        order = order or torch.randperm(len(targets), generator=generator).tolist()
        camera, target = targets[order.pop()]
        joined = {name: fixed[name].index_copy(0, rows, free[name]) for name in free}
        drawn.params = {**fixed, **joined}  # type: ignore[dict-item]  # a part of each is optimised
        l1_ssim(render(camera, drawn)["render"], target, LAMBDA_DSSIM).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        told((step + 1) / rounds)
    return model.with_rows_changed(chosen, **{name: tensor.detach() for name, tensor in free.items()})


@torch.no_grad()
def picture(model: LabelledModel, camera: Camera) -> Tensor:
    """What a view shows, (3, H, W) uint8."""
    return (render(camera, model.model())["render"].clamp(0, 1) * 255 + 0.5).byte()


@torch.no_grad()
def coverage(model: LabelledModel, chosen: Tensor, camera: Camera) -> Tensor:
    """Share (H, W) of every pixel that is of the Gaussians `chosen` (N,)."""
    own = chosen.float()[:, None].expand(-1, 3).contiguous()
    return render(camera, model.model(), override_color=own)["render"][0]
