"""What files store, as the parameters of a model: finite, logit opacity, log scale, quaternion w x y z."""

import os

import numpy as np
import torch
from torch import Tensor

from scene.ply import IDENTITY_DIM
from utils.log import logger

FLAT = 1e-12  # standard deviation that stands for 0, which has no logarithm
FLOAT_STEP = float(np.finfo(np.float32).eps) / 2  # between the largest float32 below 1, and 1


def numpy_of(tensor: Tensor) -> np.ndarray:
    """A tensor's values on the CPU."""
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array


def opacity_of_share(share: np.ndarray, step: float = FLOAT_STEP) -> np.ndarray:
    """Logits of opacities in [0, 1] that are stored in steps of `step`; 0 and 1 stand for a quarter of a step
    inside, so that they have one.
    """
    inside = np.clip(share.astype(np.float64), step / 4, 1 - step / 4)
    return np.log(inside / (1 - inside))


def model_of(
    path: str | os.PathLike[str],
    *,
    xyz: np.ndarray,
    sh: np.ndarray,
    opacity: np.ndarray,
    scale: np.ndarray,
    rotation: np.ndarray,
) -> dict[str, Tensor]:
    """Parameters as in `GaussianModel.params` with identity encodings of zero.

    xyz (N,3); sh (N,(degree+1)^2,3); opacity (N,1) logit; scale (N,3) standard deviations; rotation (N,4)
    w x y z, where zeros turn nothing. Rows with NaN, Inf or a negative scale are left out; the log says so.
    """
    tables = {"xyz": xyz, "f_dc": sh[:, :1], "f_rest": sh[:, 1:], "opacity": opacity, "rotation": rotation}
    whole = (scale >= 0).all(1) & np.isfinite(scale).all(1)
    for table in tables.values():
        whole &= np.isfinite(table).all(axis=tuple(range(1, table.ndim)))
    if not whole.all():
        logger.warning(
            "%s: %d of %d Gaussians hold NaN, Inf or a negative scale and are left out.",
            path,
            (~whole).sum(),
            len(whole),
        )
    tables["scaling"] = np.log(np.maximum(scale[whole].astype(np.float64), FLAT))
    params = {
        name: torch.from_numpy((table if name == "scaling" else table[whole]).astype(np.float32))
        for name, table in tables.items()
    }
    unturned = params["rotation"].norm(dim=1) == 0
    params["rotation"][unturned] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    params["obj_dc"] = torch.zeros(len(params["xyz"]), 1, IDENTITY_DIM)
    return params
