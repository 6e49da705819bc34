"""Filling regions of pictures from what surrounds them: `clone`, `biharmonic`, `telea`, `patchmatch`, `lama`.

All methods but `clone` are those of libraries. Pictures are (H, W, 3) uint8, regions (H, W) bool.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from utils.errors import UserError

Inpainter = Callable[[np.ndarray, np.ndarray], np.ndarray]  # picture, region -> picture

RADIUS = 3  # pixels that Telea's method looks at around a pixel
PATCH = 7  # pixels, edge of the patches that are matched
MULTIPLE = 8  # LaMa's network halves its input three times


def inpainter(name: str, weights: str = "") -> Inpainter:
    """The method of a name; `lama` needs the TorchScript file of its network as `weights`.

    Raises:
        UserError: no such method, or what it needs is not installed.
    """
    makers: dict[str, Callable[[], Inpainter]] = {
        "clone": lambda: clone,
        "biharmonic": _biharmonic,
        "telea": _telea,
        "patchmatch": _patchmatch,
        "lama": lambda: _lama(weights),
    }
    if name not in makers:
        raise UserError(f"inpainter {name!r} is none of {', '.join(makers)}.")
    return makers[name]()


def _library(name: str, needed_by: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"inpainter {needed_by}: needs a package that is not here ({error}). pip install -e '.[edit]'"
        ) from error


def clone(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The colour of the nearest pixel outside of the region."""
    nearest = distance_transform_edt(region, return_distances=False, return_indices=True)
    filled: np.ndarray = picture[tuple(nearest)]
    return filled


def _biharmonic() -> Inpainter:
    """The smoothest continuation: fourth derivatives vanish. No grain, no invented detail."""
    inpaint = _library("skimage.restoration", "biharmonic").inpaint_biharmonic

    def fill(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
        filled = inpaint(picture / 255.0, region, channel_axis=-1)
        return (np.clip(filled, 0, 1) * 255 + 0.5).astype(np.uint8)

    return fill


def _telea() -> Inpainter:
    """Telea's fast marching: carries colours inwards, weighted by distance and direction."""
    cv2 = _library("cv2", "telea")
    return lambda picture, region: cv2.inpaint(picture, region.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA)


def _patchmatch() -> Inpainter:
    """Patches of the rest of the picture: keeps grain, repeats structure."""
    library = _library("patchmatch_cython", "patchmatch")
    return lambda picture, region: np.asarray(
        library.inpaint_pyramid(np.ascontiguousarray(picture), region.astype(np.uint8) * 255, seed=0)
    ).astype(np.uint8)


def _lama(weights: str) -> Inpainter:
    """A network trained to continue pictures, from a file that the user has: `big-lama.pt`."""
    if not Path(weights).is_file():
        raise UserError(f"inpainter lama: weights {weights!r} is no file. Name its TorchScript file.")
    try:
        network = torch.jit.load(weights, map_location="cpu").eval()
    except RuntimeError as error:
        raise UserError(f"{weights}: no TorchScript network ({str(error).splitlines()[0]}).") from error

    @torch.no_grad()
    def fill(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
        height, width = region.shape
        below, right = -height % MULTIPLE, -width % MULTIPLE
        padded = np.pad(picture, ((0, below), (0, right), (0, 0)), mode="symmetric")
        mask = np.pad(region, ((0, below), (0, right)), mode="symmetric")
        image = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255.0
        answer = network(image, torch.from_numpy(mask)[None, None].float())[0].permute(1, 2, 0)
        pixels = (answer.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()[:height, :width]
        return np.where(region[..., None], pixels, picture)

    return fill
