"""Small random Gaussian models for the tests, with Adam moments and statistics that differ in every row."""

import torch

from arguments import OptimizationParams
from scene.gaussian_model import STATE_SHAPES, GaussianModel, parameter_shapes


def random_params(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Parameters of `count` Gaussians of SH degree 3, with scales about 0.05 and opacities about 0.5."""
    generator = torch.Generator().manual_seed(seed)
    params = {
        name: torch.randn(count, *shape, generator=generator) for name, shape in parameter_shapes(3).items()
    }
    params["scaling"] = params["scaling"] * 0.5 - 3.0
    return params


def trained_model(count: int, seed: int = 0, opt: OptimizationParams | None = None) -> GaussianModel:
    """A model after two Adam steps on random gradients, with random statistics."""
    model = GaussianModel(3)
    model.set_params(random_params(count, seed))
    model.training_setup(opt or OptimizationParams())
    generator = torch.Generator().manual_seed(seed + 1)
    for _ in range(2):
        step_randomly(model, generator)
    for name, shape in STATE_SHAPES.items():
        model.state[name] = torch.rand(count, *shape, generator=generator)
    return model


def step_randomly(model: GaussianModel, generator: torch.Generator) -> None:
    """One Adam step on random gradients."""
    assert model.optimizer is not None
    for parameter in model.params.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    model.optimizer.step()
    model.optimizer.zero_grad(set_to_none=True)


def rows(model: GaussianModel) -> dict[str, torch.Tensor]:
    """Every per-Gaussian tensor of `model` by name, moments included, as copies."""
    tensors = {f"params/{name}": value.detach().clone() for name, value in model.params.items()}
    tensors |= {f"state/{name}": value.clone() for name, value in model.state.items()}
    assert model.optimizer is not None
    for name, parameter in model.params.items():
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}/{name}"] = model.optimizer.state[parameter][key].clone()
    return tensors
