"""A view that is none of the scene's, as data: how a camera stood when something was selected in its picture.

The keys are those of an entry of a run's `cameras.json`: `position` [x, y, z], `rotation` (camera to world,
three rows; the camera looks along +z, y points down), `width`, `height`, `fx`, `fy`, and `cx`, `cy` (default:
the middle), in pixels. `position` is in the frame of files, xyz + origin (`scene.ply`), cameras are in the
model's.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scene.cameras import Camera
from scene.ply import NO_ORIGIN
from utils.errors import UserError

NAME = "free view"
KEYS = ("position", "rotation", "width", "height", "fx", "fy", "cx", "cy", "id", "img_name")
LARGEST_SIDE = 16_384  # pixels; more is a mistake, and would fill the memory
ORTHONORMAL = 1e-3  # how far R R^T may be from the identity


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
    width, height = (_side(entry, key, where) for key in ("width", "height"))
    fx, fy = (_positive(entry, key, where) for key in ("fx", "fy"))
    cx, cy = (
        _numbers(entry.get(key, default), (), f"{where}: camera: {key}").item()
        for key, default in (("cx", width / 2), ("cy", height / 2))
    )
    position = _numbers(entry.get("position"), (3,), f"{where}: camera: position") - origin
    rotation = _numbers(entry.get("rotation"), (3, 3), f"{where}: camera: rotation")
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > ORTHONORMAL or np.linalg.det(rotation) < 0:
        raise UserError(
            f"{where}: camera: rotation must be a rotation: three rows of length 1, at right angles."
        )
    return Camera(0, NAME, width, height, fx, fy, cx, cy, rotation, -rotation.T @ position)


def _numbers(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full((), math.nan)
    if numbers.shape != shape or not np.isfinite(numbers).all() or isinstance(value, bool):
        kind = {(): "a finite number", (3,): "[x, y, z]"}.get(shape, "three rows of three numbers")
        raise UserError(f"{where} must be {kind}, not {value!r}.")
    return numbers


def _positive(entry: Mapping[str, Any], key: str, where: str) -> float:
    value = float(_numbers(entry.get(key), (), f"{where}: camera: {key}"))
    if value <= 0:
        raise UserError(f"{where}: camera: {key} must be above 0, not {value!r}.")
    return value


def _side(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if type(value) is not int or not 0 < value <= LARGEST_SIDE:
        raise UserError(
            f"{where}: camera: {key} must be a whole number from 1 to {LARGEST_SIDE}, not {value!r}."
        )
    return value
