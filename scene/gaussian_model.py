"""The Gaussians of a scene: named parameters, per-Gaussian state, and their optimizer.

Naming: `params` holds what is optimised, in the space in which it is optimised (logit opacity, log scale,
unnormalised quaternion w x y z); `state` holds what training remembers about each Gaussian. Every tensor in
both has one row per Gaussian, and rows are only ever added or removed through `scene.gaussian_ops`. The
`get_*` properties return the values the renderer needs and keep the names of 3DGS and Gaussian Grouping.
"""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from arguments import OptimizationParams
from scene.ply import IDENTITY_DIM, NO_ORIGIN, read_ply, write_ply
from scene.views import BasicPointCloud
from utils.general import Sigmoid, get_expon_lr_func, inverse_sigmoid
from utils.sh import RGB2SH

INITIAL_OPACITY = 0.1  # 3DGS: faint enough that every Gaussian along a ray still receives gradient
MIN_INITIAL_COLOR = 0.5 / 255  # the renderer's clamp at 0 lets no gradient through: black would stay black
MIN_INITIAL_VARIANCE = 1e-7  # coincident SfM points would otherwise start with scale log(0)

# Per-Gaussian statistics and their shape behind N; all start at zero.
STATE_SHAPES: dict[str, tuple[int, ...]] = {
    "xyz_gradient_accum": (1,),
    "denom": (1,),
    "identity_gradient_accum": (1,),
    "identity_gradient_denom": (1,),
}


def parameter_shapes(sh_degree: int) -> dict[str, tuple[int, ...]]:
    """Names of the parameters and the shape of each behind N, for a model of `sh_degree`."""
    return {
        "xyz": (3,),
        "f_dc": (1, 3),
        "f_rest": ((sh_degree + 1) ** 2 - 1, 3),
        "opacity": (1,),
        "scaling": (3,),
        "rotation": (4,),
        "obj_dc": (1, IDENTITY_DIM),
    }


class GaussianModel:
    """Named parameters (`params`), per-Gaussian statistics (`state`) and the Adam that moves the former."""

    def __init__(self, sh_degree: int = 3, device: torch.device | str = "cpu") -> None:
        self.max_sh_degree = sh_degree
        self.active_sh_degree = 0
        self.spatial_lr_scale = 1.0
        self.origin = NO_ORIGIN  # of the scene's own frame: files hold xyz + origin, see `scene.ply`
        self.device = torch.device(device)
        self.optimizer: torch.optim.Optimizer | None = None
        self.params: dict[str, nn.Parameter] = {}
        self.state: dict[str, Tensor] = {}
        self.set_params({name: torch.empty(0, *shape) for name, shape in parameter_shapes(sh_degree).items()})

    # What the renderer and the losses read.

    @property
    def num_gaussians(self) -> int:
        """N."""
        return self.params["xyz"].shape[0]

    @property
    def num_objects(self) -> int:
        """Identity channels D, under Gaussian Grouping's name."""
        return self.params["obj_dc"].shape[2]

    @property
    def get_xyz(self) -> Tensor:
        """Centres (N, 3) in world units."""
        return self.params["xyz"]

    @property
    def get_scaling(self) -> Tensor:
        """Standard deviations along the principal axes (N, 3) in world units."""
        return torch.exp(self.params["scaling"])

    @property
    def get_rotation(self) -> Tensor:
        """Unit quaternions (N, 4), w x y z."""
        return nn.functional.normalize(self.params["rotation"])

    @property
    def get_opacity(self) -> Tensor:
        """Opacities (N, 1) in (0, 1)."""
        return Sigmoid.apply(self.params["opacity"])

    @property
    def get_features(self) -> Tensor:
        """SH coefficients (N, (max_sh_degree + 1)^2, 3), constant term first."""
        return torch.cat((self.params["f_dc"], self.params["f_rest"]), dim=1)

    @property
    def get_objects(self) -> Tensor:
        """Identity encodings (N, 1, 16): degree 0, the same from every view."""
        return self.params["obj_dc"]

    # Where Gaussians come from.

    def set_params(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the model by `tensors` (keys and shapes of `parameter_shapes`); statistics restart at zero.

        Raises: ValueError where a parameter is missing, unknown or of another shape.
        """
        shapes = parameter_shapes(self.max_sh_degree)
        count = tensors["xyz"].shape[0]
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        expected = {name: (count, *shape) for name, shape in shapes.items()}
        if found != expected:
            raise ValueError(f"the model's parameters must have the shapes {expected}, not {found}")
        self.params = {
            name: nn.Parameter(tensors[name].detach().to(self.device, torch.float32).contiguous())
            for name in shapes
        }
        self.state = {
            name: torch.zeros(count, *shape, device=self.device) for name, shape in STATE_SHAPES.items()
        }
        self.optimizer = None

    def create_from_pcd(self, pcd: BasicPointCloud, spatial_lr_scale: float) -> None:
        """Start one round Gaussian per point of `pcd` (points (N, 3), colors (N, 3) in [0, 1]).

        The scale is the root mean square distance to the 3 nearest other points. Identity encodings start
        random (from torch's generator): equal encodings would receive equal gradients along a ray and
        separate slowly.
        """
        from simple_knn._C import distCUDA2  # here, so that a trained model can be read without the extension

        points = torch.from_numpy(np.ascontiguousarray(pcd.points, dtype=np.float32))  # (N, 3)
        colors = torch.from_numpy(np.ascontiguousarray(pcd.colors, dtype=np.float32))  # (N, 3)
        count = points.shape[0]
        variance = distCUDA2(points).clamp_min(MIN_INITIAL_VARIANCE)  # (N,)
        rotation = torch.zeros(count, 4)
        rotation[:, 0] = 1.0
        tensors = {
            "xyz": points,
            "f_dc": RGB2SH(colors.clamp_min(MIN_INITIAL_COLOR))[:, None, :],
            "f_rest": torch.zeros(count, *parameter_shapes(self.max_sh_degree)["f_rest"]),
            "opacity": inverse_sigmoid(torch.full((count, 1), INITIAL_OPACITY)),
            "scaling": (0.5 * torch.log(variance))[:, None].repeat(1, 3),
            "rotation": rotation,
            "obj_dc": RGB2SH(torch.rand(count, 1, IDENTITY_DIM)),
        }
        self.set_params(tensors)
        self.active_sh_degree = 0
        self.spatial_lr_scale = spatial_lr_scale

    def save_ply(self, path: str | Path) -> None:
        """Write every parameter to `path` in Gaussian Grouping's columns, in the user's frame."""
        write_ply(path, self.params, self.origin)

    def load_ply(self, path: str | Path) -> None:
        """Become the model that we, 3DGS or Gaussian Grouping saved, with the file's SH degree active."""
        tensors = read_ply(path, self.origin)
        self.max_sh_degree = math.isqrt(tensors["f_rest"].shape[1] + 1) - 1
        self.active_sh_degree = self.max_sh_degree
        self.set_params(tensors)

    # Training.

    def training_setup(self, opt: OptimizationParams) -> None:
        """Make the optimizer, one named group per parameter, and the decay of the position learning rate."""
        from fused_losses import (
            Adam,
        )  # here, so that rendering and editing do not need the training extension

        position_lr = opt.position_lr_init * self.spatial_lr_scale
        rates = {
            "xyz": position_lr,
            "f_dc": opt.feature_lr,
            "f_rest": opt.feature_lr / 20.0,  # 3DGS: view dependence must not explain what geometry can
            "opacity": opt.opacity_lr,
            "scaling": opt.scaling_lr,
            "rotation": opt.rotation_lr,
            "obj_dc": opt.identity_lr,
        }
        groups = [{"params": [self.params[name]], "lr": rate, "name": name} for name, rate in rates.items()]
        self.optimizer = Adam(groups, lr=0.0, eps=1e-15)
        self._position_lr = get_expon_lr_func(
            lr_init=position_lr,
            lr_final=opt.position_lr_final * self.spatial_lr_scale,
            max_steps=opt.position_lr_max_steps,
        )

    def update_learning_rate(self, iteration: int) -> float:
        """Set and return the position learning rate of `iteration`."""
        rate = float(self._position_lr(iteration))
        self.optimizer_group("xyz")["lr"] = rate
        return rate

    def optimizer_group(self, name: str) -> dict[str, Any]:
        """The optimizer's group that holds parameter `name`.

        Raises: ValueError before `training_setup`.
        """
        if self.optimizer is None:
            raise ValueError("this model has no optimizer yet; call training_setup first")
        return next(group for group in self.optimizer.param_groups if group["name"] == name)

    def oneupSHdegree(self) -> None:
        """Let one more SH degree take part in the rendering."""
        self.active_sh_degree = min(self.active_sh_degree + 1, self.max_sh_degree)

    def capture(self) -> dict[str, Any]:
        """Everything training needs to go on, as numbers and tensors (the model's own, not copies)."""
        return {
            "max_sh_degree": self.max_sh_degree,
            "active_sh_degree": self.active_sh_degree,
            "spatial_lr_scale": self.spatial_lr_scale,
            "params": {name: parameter.detach() for name, parameter in self.params.items()},
            "state": dict(self.state),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
        }

    def restore(self, captured: Mapping[str, Any], opt: OptimizationParams | None = None) -> None:
        """Become the captured model; with `opt` also rebuild the optimizer and take over its moments."""
        captured = copy.deepcopy(dict(captured))  # or both models would share their tensors
        self.max_sh_degree = captured["max_sh_degree"]
        self.set_params(captured["params"])
        self.state = {name: captured["state"][name].to(self.device) for name in STATE_SHAPES}
        self.active_sh_degree = captured["active_sh_degree"]
        self.spatial_lr_scale = captured["spatial_lr_scale"]
        if opt is None:
            return
        self.training_setup(opt)
        if captured["optimizer"] is not None and self.optimizer is not None:
            self.optimizer.load_state_dict(captured["optimizer"])
