"""A scene: its views and its Gaussians."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arguments import ModelParams
from scene import checks
from scene.cameras import Camera, load_camera, load_pixels
from scene.dataset_readers import read_scene
from scene.gaussian_model import GaussianModel
from scene.pixels import PixelStore
from scene.ply import write_point_cloud
from scene.run_folder import RunFolder
from scene.views import CameraInfo
from utils.files import write_text
from utils.log import bar

__all__ = ["GaussianModel", "Scene"]

READERS = min(8, os.cpu_count() or 1)  # threads that decode images; more wait for the disk


class Scene:
    """Views and Gaussians; the constructor reads and writes nothing.

    Args:
        args: where the scene and the run are.
        gaussians: filled from the run's PLY (`load_iteration`) or the scene's points; None for views alone.
        load_iteration: iteration of the saved model to load, -1 = the last; None starts from the points.
        device: where the cameras' matrices are put; photographs and masks stay on `args.data_device`, or
            on the disk where `args.data_cache_mb` has no room for them.

    Attributes: `folder` (of the run), `info` (what the readers gave), `cameras_extent` (length scale of the
    scene), `class_ids` (sorted ids in the training masks), `notes` (what the data check told), `loaded_iter`.
    """

    def __init__(
        self,
        args: ModelParams,
        gaussians: GaussianModel | None,
        load_iteration: int | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder = RunFolder(Path(args.model_path))
        self.gaussians = gaussians
        self.loaded_iter = self.folder.latest_saved() if load_iteration == -1 else load_iteration
        self.info = info = read_scene(args)
        self.notes = checks.check_scene(info, args, self.loaded_iter is None, gaussians is not None)
        args = replace(args, data_device=checks.usable_device(args.data_device, device))
        store = PixelStore(args.data_cache_mb)
        self.train_cameras, areas = _load(info.train_cameras, args, device, "training views", store)
        self.test_cameras, _ = _load(info.test_cameras, args, device, "test views", store)
        if self.loaded_iter is None:
            self.notes += checks.settle(checks.judge_labels(areas, args))
        self.cameras_extent: float = info.nerf_normalization["radius"]
        self.class_ids = sorted({label for found in areas.values() for label in found})
        if gaussians is None:
            return
        gaussians.origin = info.origin
        if self.loaded_iter is None:
            gaussians.create_from_pcd(info.point_cloud, self.cameras_extent)
        else:
            gaussians.load_ply(self.folder.ply(self.loaded_iter))

    def getTrainCameras(self) -> list[Camera]:
        """Training views."""
        return self.train_cameras

    def getTestCameras(self) -> list[Camera]:
        """Test views, sorted by name."""
        return self.test_cameras

    def save(self, iteration: int) -> None:
        """Write the Gaussians to `point_cloud/iteration_N/point_cloud.ply`."""
        if self.gaussians is None:
            raise ValueError("a scene without Gaussians cannot be saved")
        self.gaussians.save_ply(self.folder.ply(iteration))

    def write_start(self) -> None:
        """Write what 3DGS's viewers read beside the model: every camera and the starting points."""
        views = [
            _camera_to_json(index, view, self.info.origin)
            for index, view in enumerate(self.info.test_cameras + self.info.train_cameras)
        ]
        write_text(self.folder.cameras, json.dumps(views))
        points = self.info.point_cloud
        write_point_cloud(self.folder.input_points, points.points, points.colors, self.info.origin)


def _load(
    infos: list[CameraInfo],
    args: ModelParams,
    device: torch.device | str,
    what: str,
    store: PixelStore,
) -> tuple[list[Camera], dict[str, dict[int, int]]]:
    """The cameras, and view name -> id -> pixels of their masks."""
    cameras: list[Camera] = []
    areas: dict[str, dict[int, int]] = {}
    pin = args.data_device == "cpu" and torch.device(device).type == "cuda"
    with ThreadPoolExecutor(READERS) as pool:
        views = pool.map(partial(load_camera, args=args, pin=pin), infos, range(len(infos)))
        for info, camera in zip(infos, bar(views, f"Reading {what}", len(infos)), strict=True):
            if camera.objects is not None:
                ids, pixels = torch.unique(camera.objects.cpu().int(), return_counts=True)
                areas[info.image_name] = dict(zip(ids.tolist(), pixels.tolist(), strict=True))
            if not store.keeps(camera.pixels):
                camera.leave_pixels_to(store, partial(load_pixels, info, args, pin))
            cameras.append(camera.with_matrices_on(device))
    return cameras, areas


def _camera_to_json(index: int, view: CameraInfo, origin: np.ndarray) -> dict[str, Any]:
    return {
        "id": index,
        "img_name": view.image_name,
        "width": view.width,
        "height": view.height,
        "position": (-view.R @ view.T + origin).tolist(),
        "rotation": view.R.tolist(),  # camera to world, row by row
        "fy": view.fy,
        "fx": view.fx,
        "cx": view.cx,
        "cy": view.cy,
    }
