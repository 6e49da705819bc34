"""The data check: what would otherwise fail hours later, or silently train on the wrong thing.

Errors are `UserError` and name file, field and remedy. What one can live with is told once through the
logger "gradiseg" and returned as a list of notes.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from scene.views import CameraInfo
from utils.errors import UserError, some
from utils.files import check_free_space

logger = logging.getLogger("gradiseg")

MIN_FREE_BYTES = 200 * 2**20  # a model of 200,000 Gaussians with its checkpoint
# What a run writes into its folder beside cfg_args, cameras.json and input.ply, which every run overwrites.
RESULTS = (
    "point_cloud",
    "point_cloud_object_removal",
    "train",
    "test",
    "chkpnt*.pth",
    "events.out.tfevents*",
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


def check_points(points: np.ndarray, cloud: str) -> None:
    """Raise unless `points` (N,3), which come from `cloud`, are finite and not empty."""
    if len(points) == 0:
        raise UserError(f"{cloud}: the point cloud is empty. Triangulate points (colmap point_triangulator).")
    bad = int((~np.isfinite(points).all(axis=1)).sum())
    if bad:
        raise UserError(
            f"{cloud}: {bad} of {len(points)} points hold NaN or Inf. Remove them or export again."
        )


def usable_device(data_device: str) -> str:
    """`data_device`, or the CPU (and a note) where a run made with a GPU is opened without one."""
    if data_device.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("--data_device %s: no GPU here, the photographs stay in main memory.", data_device)
        return "cpu"
    return data_device


def check_output_folder(
    model_path: str | os.PathLike[str], overwrite: bool = False, resume: bool = False
) -> None:
    """Raise unless a run can be written to `model_path`: named, free of another run, space on the disk."""
    folder = Path(model_path)
    if not str(model_path):
        raise UserError("-m (--model_path) is required: the folder that the run is written to.")
    if overwrite and resume:
        raise UserError(
            "--overwrite and --resume exclude each other, --overwrite and --start_checkpoint too: "
            "replace the run or go on with it."
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file, not a folder. Choose another -m (--model_path).")
    held = _results(folder) + ([folder / "cfg_args"] if (folder / "cfg_args").exists() else [])
    if held and not (overwrite or resume):
        raise UserError(
            f"{folder}: holds another run ({some([path.name for path in held])}). Choose another -m, "
            "replace the run with --overwrite or go on with --resume."
        )
    check_free_space(folder, MIN_FREE_BYTES, "-m (--model_path)")


def clear_output_folder(model_path: str | os.PathLike[str]) -> None:
    """Delete the results of the run in `model_path` (for --overwrite), nothing that a run does not write."""
    for path in _results(Path(model_path)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _results(folder: Path) -> list[Path]:
    return sorted(path for pattern in RESULTS for path in folder.glob(pattern))
