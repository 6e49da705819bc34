"""Networks that cut out what is clicked: SAM, or one that comes as a TorchScript file."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from pretrained.sam import load_sam, segment_prompted
from utils.errors import UserError

NETWORKS = ("sam", "sam2", "torchscript")

# Photograph (H, W, 3) uint8, points (K, 2) as x and y in its pixels, and which of them are on the object
# (K,) bool -> mask (H, W) bool.
PromptedSegmenter = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

CONTRACT = (
    "It must take an image (3,H,W) float32 in [0,1], points (K,2) float32 in pixels, x and y, labels (K,) "
    "int64, 1 = of the object, 0 = not, and give a mask (H,W), > 0 on the object."
)


def load_prompted(kind: str, weights: str, device: torch.device) -> PromptedSegmenter:
    """The segmenter of one of `NETWORKS`; weights: a file of TorchScript, a folder or a name on the hub.

    Raises: UserError where it cannot be read.
    """
    if kind == "torchscript":
        return load_torchscript(weights, device)
    return partial(segment_prompted, load_sam(kind, weights, device))


def load_torchscript(path: str, device: torch.device) -> PromptedSegmenter:
    """The segmenter in a file that `torch.jit.save` wrote; `CONTRACT` says what it takes and gives.

    Raises: UserError where it cannot be read, and from the segmenter where it does not keep to that.
    """
    try:
        module = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"--weights {path}: no TorchScript file ({reason}). Write it by torch.jit.save."
        ) from error

    @torch.no_grad()
    def segment(image: np.ndarray, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
        picture = torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255.0
        try:
            mask = module(
                picture,
                torch.from_numpy(points).float().to(device),
                torch.from_numpy(labels).long().to(device),
            )
            found: np.ndarray = (mask > 0).cpu().numpy()
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"--weights {path}: the network failed ({reason}). {CONTRACT}") from error
        if found.shape != image.shape[:2]:
            raise UserError(
                f"--weights {path}: gave a mask of {found.shape} for {image.shape[:2]}. {CONTRACT}"
            )
        return found

    return segment
