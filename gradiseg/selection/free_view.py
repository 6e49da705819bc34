"""A view that is none of the scene's, as data: how a camera stood when something was selected in its picture.

The keys are those of an entry of a run's `cameras.json`: `position` [x, y, z], `rotation` (camera to world,
three rows; the camera looks along +z, y points down), `width`, `height`, `fx`, `fy`, and `cx`, `cy` (default:
the middle), in pixels. `position` is in the frame of files, xyz + origin (`scene.ply`), cameras are in the
model's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scene.cameras import Camera
from scene.cameras_json import parse_entry
from scene.ply import NO_ORIGIN
from utils.errors import UserError

NAME = "free view"
KEYS = ("position", "rotation", "width", "height", "fx", "fy", "cx", "cy", "id", "img_name")


def entry_of(camera: Camera, origin: np.ndarray = NO_ORIGIN) -> dict[str, Any]:
    """A camera as an entry; `origin` (3,) is the model's."""
    intrinsics = {name: float(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy")}
    size = {"width": int(camera.image_width), "height": int(camera.image_height)}
    return {
        "position": (-camera.R @ camera.T + origin).tolist(),
        "rotation": camera.R.tolist(),
        **size,
        **intrinsics,
    }


def camera_of(entry: Any, where: str, origin: np.ndarray = NO_ORIGIN) -> Camera:
    """The camera of an entry; equal entries give equal bits.

    Raises:
        UserError: a key that lacks or is unknown, a value that no camera has; `where` begins the message.
    """
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: camera must be an object as in cameras.json, not {entry!r}.")
    unknown = [key for key in entry if key not in KEYS]
    if unknown:
        raise UserError(f"{where}: camera has no {unknown[0]!r}. It takes {', '.join(KEYS[:8])}.")
    found = parse_entry(entry, f"{where}: camera")
    intrinsics = (found.width, found.height, found.fx, found.fy, found.cx, found.cy)
    return Camera(0, NAME, *intrinsics, found.R, -found.R.T @ (found.centre - origin))
