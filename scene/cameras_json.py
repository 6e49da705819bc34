"""`cameras.json`: the cameras of a run, as 3DGS writes them.

An entry is a view: `img_name`, `position` [x, y, z] of its centre, `rotation` (camera to world, three
rows; the camera looks along +z, y points down), and in pixels `width`, `height`, `fx`, `fy`, `cx`, `cy`. 3DGS
itself writes no `cx`, `cy` and draws as if they were the middle.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scene.colmap import leads_outside
from scene.names import Pictures, is_there, without_suffix
from scene.views import CameraInfo
from utils.errors import UserError

LARGEST_SIDE = 16_384  # pixels; more is a mistake, and would fill the memory
ORTHONORMAL = 1e-3  # how far R R^T may be from the identity


class Entry(NamedTuple):
    """What an entry says of a camera."""

    R: np.ndarray  # (3, 3) camera to world
    centre: np.ndarray  # (3,)
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


def parse_entry(entry: Mapping[str, Any], where: str) -> Entry:
    """An entry's camera; equal entries give equal bits.

    Raises:
        UserError: a key that lacks, a value that no camera has; `where` begins the message.
    """
    width, height = (_side(entry, key, where) for key in ("width", "height"))
    fx, fy = (positive(entry, key, where) for key in ("fx", "fy"))
    cx, cy = (
        numbers(entry.get(key, default), (), f"{where}: {key}").item()
        for key, default in (("cx", width / 2), ("cy", height / 2))
    )
    centre = numbers(entry.get("position"), (3,), f"{where}: position")
    R = numbers(entry.get("rotation"), (3, 3), f"{where}: rotation")
    check_rotation(R, f"{where}: rotation")
    return Entry(R, centre, width, height, fx, fy, cx, cy)


def read_cameras_json(path: Path, entries: Any, images: Path, pictures: Pictures) -> list[CameraInfo]:
    """The views of `entries`, the content of the file `path`, by name, whose pictures lie in `images`.

    Raises:
        UserError: names the file, the entry and the key.
    """
    views: dict[str, CameraInfo] = {}
    for index, entry in enumerate(entries):
        where = f"{path}: entry {index}"
        if not isinstance(entry, Mapping):
            raise UserError(f"{where} must be an object, not {entry!r:.40}.")
        name = entry.get("img_name")
        if not isinstance(name, str) or not name or "\0" in name or leads_outside(name):
            raise UserError(f"{where}: img_name must be the name of a picture, not {name!r:.40}.")
        image = pictures.find(images / name.replace("\\", "/"))
        if not is_there(image):
            raise UserError(
                f"{where}: {name} is not in {images}, under any suffix of pictures. Copy it there, name "
                "their folder with -i, or leave the entry out."
            )
        view_name = without_suffix(image.relative_to(images).as_posix())
        if view_name in views:
            raise UserError(f"{where}: img_name {name!r} is there twice. Leave one of them out.")
        camera = parse_entry(entry, f"{where} ({name})")
        rest = camera._asdict()
        R, centre = rest.pop("R"), rest.pop("centre")
        views[view_name] = CameraInfo(view_name, image, None, R, -R.T @ centre, **rest)
    return [views[name] for name in sorted(views)]


def check_rotation(R: np.ndarray, where: str) -> None:
    """Raise unless R (3,3) is a rotation."""
    if np.abs(R @ R.T - np.eye(3)).max() > ORTHONORMAL or np.linalg.det(R) < 0:
        raise UserError(f"{where} must be a rotation: three rows of length 1, at right angles.")


def numbers(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Finite numbers of some shape."""
    try:
        given = np.array(value)
        found = given.astype(np.float64) if given.dtype.kind in "if" else np.full((), math.nan)
    except (TypeError, ValueError, OverflowError):
        found = np.full((), math.nan)
    if found.shape != shape or not np.isfinite(found).all():
        kinds = {(): "a finite number", (3,): "[x, y, z]", (3, 3): "three rows of three numbers"}
        raise UserError(f"{where} must be {kinds.get(shape, 'three rows of four numbers')}, not {value!r}.")
    return found


def positive(entry: Mapping[str, Any], key: str, where: str) -> float:
    value = float(numbers(entry.get(key), (), f"{where}: {key}"))
    if value <= 0:
        raise UserError(f"{where}: {key} must be above 0, not {value!r}.")
    return value


def _side(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if type(value) is not int or not 0 < value <= LARGEST_SIDE:
        raise UserError(f"{where}: {key} must be a whole number from 1 to {LARGEST_SIDE}, not {value!r}.")
    return value
