"""nerfstudio's own frame: it turns, centres and scales a scene before it trains, and writes down how."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scene.cameras_json import check_rotation, numbers, positive
from scene.views import CameraInfo
from utils.errors import UserError
from utils.json_files import read_json


class Similarity(NamedTuple):
    """Another frame of a scene: x becomes scale (rotation x + offset)."""

    rotation: np.ndarray  # (3, 3)
    offset: np.ndarray  # (3,)
    scale: float

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) in the new frame."""
        moved: np.ndarray = self.scale * (points @ self.rotation.T + self.offset)
        return moved

    def view(self, view: CameraInfo) -> CameraInfo:
        """A view in the new frame."""
        R = self.rotation @ view.R
        centre = self.points((-view.R @ view.T)[None])[0]
        return replace(view, R=R, T=-R.T @ centre)


def read_dataparser(path: Path, content: Mapping[str, Any] | None = None) -> Similarity:
    """The frame in which nerfstudio trained, of its `dataparser_transforms.json`.

    The file maps the coordinates that COLMAP gave. `content` is that of a `transforms.json`, if the poses
    come from it: its `applied_transform` and `applied_scale` have been applied to them already.

    Raises:
        UserError: names the file and the key.
    """
    record = read_json(path, "--dataparser takes nerfstudio's dataparser_transforms.json.")
    if not isinstance(record, Mapping) or "transform" not in record or "scale" not in record:
        raise UserError(
            f"{path}: must hold transform and scale, as nerfstudio's dataparser_transforms.json, which lies "
            "beside the config.yml of its run. Poses (transforms.json, cameras.json) are given by --cameras."
        )
    matrix = _affine(record["transform"], f"{path}: transform")
    scale = positive(record, "scale", str(path))
    if content is not None and "applied_transform" in content:
        applied = _affine(content["applied_transform"], "the poses' file: applied_transform")
        matrix = matrix @ np.linalg.inv(applied)
    if content is not None and "applied_scale" in content:
        scale /= positive(content, "applied_scale", "the poses' file")
    return Similarity(matrix[:3, :3], matrix[:3, 3], scale)


def _affine(rows: Any, where: str) -> np.ndarray:
    """A rotation and an offset, three rows or four, as (4, 4)."""
    short = isinstance(rows, list) and len(rows) == 3
    matrix = np.eye(4)
    matrix[: 3 if short else 4] = numbers(rows, (3, 4) if short else (4, 4), where)
    check_rotation(matrix[:3, :3], where)
    return matrix
