"""For tests: cameras of a scene as the files of other programs, and nerfstudio's frame."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from scene.views import CameraInfo, SceneInfo

APPLIED = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])  # ns-process-data's, of COLMAP's world
TURN = np.linalg.qr(np.array([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]))[0]
TURN = TURN * np.sign(np.linalg.det(TURN))
OFFSET, SCALE = np.array([0.3, -0.2, 0.7]), 0.37


def views_of(info: SceneInfo) -> list[CameraInfo]:
    """All views by name."""
    return sorted([*info.train_cameras, *info.test_cameras], key=lambda view: view.image_name)


def write_json(path: Path, content: object) -> Path:
    """A file, and its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def cameras_json(info: SceneInfo) -> list[dict[str, Any]]:
    """As 3DGS writes them, with the principal point, which it leaves out."""
    return [
        {
            "id": index,
            "img_name": view.image_name,
            "width": view.width,
            "height": view.height,
            "position": (-view.R @ view.T).tolist(),
            "rotation": view.R.tolist(),
            "fy": view.fy,
            "fx": view.fx,
            "cx": view.cx,
            "cy": view.cy,
        }
        for index, view in enumerate(views_of(info))
    ]


def transforms_json(info: SceneInfo) -> dict[str, Any]:
    """As ns-process-data writes them of COLMAP's: axes of OpenGL, the world turned by `APPLIED`."""
    frames = []
    for view in views_of(info):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = view.R * [1, -1, -1], -view.R @ view.T
        pose[:3] = APPLIED[:, :3] @ pose[:3]
        lens = {"fl_x": view.fx, "fl_y": view.fy, "cx": view.cx, "cy": view.cy}
        size = {"w": view.width, "h": view.height}
        name = f"images/{view.image_path.name}"
        frames.append({"file_path": name, "transform_matrix": pose.tolist(), **lens, **size})
    return {"camera_model": "OPENCV", "frames": frames, "applied_transform": APPLIED.tolist()}


def dataparser_json() -> dict[str, Any]:
    """nerfstudio's file for a frame that is turned, moved and scaled: it maps COLMAP's world."""
    return {"transform": np.c_[TURN, OFFSET].tolist(), "scale": SCALE}


def in_that_frame(points: np.ndarray) -> np.ndarray:
    """Points (N, 3) of COLMAP's world in nerfstudio's frame."""
    moved: np.ndarray = SCALE * (points @ TURN.T + OFFSET)
    return moved
