"""A scene on disk without the pixels: what readers give, checks look at and cameras are made of.

Poses follow 3DGS: `R` (3,3) is the camera-to-world rotation, `T` (3,) the world-to-camera translation.
Intrinsics belong to `width` x `height`, which for an `images_4` folder is the size COLMAP saw and not that of
the file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CameraInfo:
    """A view: where its files are and how it was taken."""

    image_name: str  # name below the image folder, without suffix; may hold dots and folders
    image_path: Path
    mask_path: Path | None  # None: the view has no mask
    R: np.ndarray  # (3, 3) camera-to-world
    T: np.ndarray  # (3,) world-to-camera
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class BasicPointCloud:
    """Points from which training starts."""

    points: np.ndarray  # (N, 3) float64
    colors: np.ndarray  # (N, 3) float64 in [0, 1]


@dataclass(frozen=True)
class SceneInfo:
    """A scene, views sorted by name.

    Far from the origin (survey coordinates) poses and points are relative to `origin`, which is 0 otherwise:
    user's coordinates = these + origin.
    """

    train_cameras: list[CameraInfo]
    test_cameras: list[CameraInfo]
    point_cloud: BasicPointCloud  # random where `has_points` is False
    has_points: bool
    nerf_normalization: dict[str, Any]  # "translate" (3,), "radius" float
    origin: np.ndarray  # (3,) float64, whole numbers
    model_folder: Path | None  # COLMAP's files; None: the cameras come from JSON
    notes: list[str]  # what was decided while reading, for the user to know
