"""The data check: what would otherwise fail hours later, or silently train on the wrong thing.

Errors are `UserError` and name file, field and remedy. What one can live with is told once through the
logger "gradiseg" and returned as a list of notes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scene.colmap import PARTS, part_path
from scene.views import CameraInfo
from utils.errors import UserError

logger = logging.getLogger("gradiseg")

ASPECT_TOLERANCE = 1.5  # pixels: folders such as images_4 are rounded to whole pixels
NAMES_SHOWN = 3


def check_source(source: Path) -> None:
    """Raise unless `source` is a folder with a COLMAP model in `sparse/0` or `transforms_train.json`."""
    if not source.name or not source.is_dir():
        raise UserError(f"{source}: no such folder. -s (--source_path) takes the folder of a scene.")
    if (source / "transforms_train.json").is_file() and not (source / "sparse").is_dir():
        return
    model = source / "sparse" / "0"
    if not model.is_dir():
        raise UserError(
            f"{model}: not there, nor {source / 'transforms_train.json'}. Run COLMAP and put cameras, images "
            "and points3D (.bin or .txt) into it."
        )
    missing = [part for part in PARTS if part_path(model, part) is None]
    if missing:
        raise UserError(
            f"{model}: {' and '.join(missing)} (.bin or .txt) missing. Copy COLMAP's undistorted sparse "
            "model into it."
        )


def check_views(train: Sequence[CameraInfo], test: Sequence[CameraInfo]) -> None:
    """Raise unless there is something to train on and every pose and focal length is usable."""
    if not train:
        raise UserError(
            f"no training views ({len(test)} test views). With --train_split, images_train/ must hold names "
            "of images in the model; otherwise check sparse/0/images."
        )
    for view in (*train, *test):
        intrinsics = np.array([view.fx, view.fy, view.cx, view.cy])
        if not (np.isfinite(view.R).all() and np.isfinite(view.T).all() and np.isfinite(intrinsics).all()):
            raise UserError(
                f"{view.image_name}: its pose or camera holds NaN or Inf. Leave it out of the model."
            )
        if abs(np.linalg.det(view.R) - 1.0) > 1e-3:
            raise UserError(
                f"{view.image_name}: its pose is no rotation. Export the model again or leave it out."
            )
        if min(view.fx, view.fy, view.width, view.height) <= 0:
            raise UserError(
                f"{view.image_name}: its camera has a focal length or size of 0 or less. Check cameras."
            )


def check_points(points: np.ndarray) -> None:
    """Raise unless `points` (N,3) are finite and not empty."""
    if len(points) == 0:
        raise UserError("points3D: the point cloud is empty. Triangulate points (colmap point_triangulator).")
    bad = int((~np.isfinite(points).all(axis=1)).sum())
    if bad:
        raise UserError(
            f"points3D: {bad} of {len(points)} points hold NaN or Inf. Remove them or export again."
        )


def check_files(train: Sequence[CameraInfo], test: Sequence[CameraInfo], mask_folder: Path) -> list[str]:
    """Check image files against the model and masks against images, by their headers; return the notes."""
    absent = [view.image_path for view in (*train, *test) if not view.image_path.is_file()]
    if absent:
        raise UserError(
            f"{absent[0]}: in the model but not on disk ({len(absent)} such images). Copy them there, or "
            "name their folder with -i (--images)."
        )
    resized = []
    for view in (*train, *test):
        width, height = image_size(view.image_path)
        if abs(width / view.width * view.height - height) > ASPECT_TOLERANCE:
            raise UserError(
                f"{view.image_path}: {width}x{height}, but its camera is {view.width}x{view.height}. Use the "
                "images that belong to the model (undistorted ones to an undistorted model)."
            )
        if view.mask_path and image_size(view.mask_path) != (width, height):
            resized.append(view.mask_path.name)
    unmasked = [view.image_name for view in train if not view.mask_path]
    notes = []
    if len(unmasked) == len(train):
        notes.append(f"no masks of training views in {mask_folder} (--object_path names it).")
    elif unmasked:
        notes.append(
            f"{len(unmasked)} of {len(train)} training views have no mask in {mask_folder} "
            f"({_some(unmasked)}): they train on colour alone."
        )
    if resized:
        notes.append(
            f"{len(resized)} masks differ in size from their images ({_some(resized)}): resized, aligned."
        )
    for note in notes:
        logger.warning(note)
    return notes


def check_ids(path: Path, ids: np.ndarray, num_classes: int) -> None:
    """Raise if an id of the mask `path` has no class."""
    largest = int(ids.max(initial=0))
    if largest >= num_classes:
        raise UserError(
            f"{path}: holds id {largest}, but num_classes is {num_classes}. Use --num_classes {largest + 1} "
            "or more, if the file is a mask of ids."
        )


def usable_device(data_device: str) -> str:
    """`data_device`, or the CPU (and a note) where a run made with a GPU is opened without one."""
    if data_device.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("--data_device %s: no GPU here, the photographs stay in main memory.", data_device)
        return "cpu"
    return data_device


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file from its header.

    Raises:
        UserError: the file is missing or no image.
    """
    try:
        with Image.open(path) as file:
            return file.size
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}). Copy the file again.") from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
