"""A scene under training: its views, its Gaussians and the folder of the run."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from arguments import ModelParams
from scene import checks, findings
from scene.cameras import Camera, load_camera, load_pixels
from scene.dataset_readers import read_scene
from scene.gaussian_model import GaussianModel
from scene.pixels import PixelStore
from scene.ply import write_point_cloud
from scene.views import CameraInfo, SceneInfo
from utils.files import atomic_write, latest_iteration

__all__ = ["GaussianModel", "Scene"]

READERS = min(8, os.cpu_count() or 1)  # threads that decode images; more wait for the disk


class Scene:
    """Views, Gaussians and run folder.

    Args:
        args: where the scene and the run are.
        gaussians: filled from the run's PLY (`load_iteration`) or the scene's points; None for views alone.
        load_iteration: iteration of the saved model to load, -1 = the last; None starts a new run, which
            writes `cameras.json` and `input.ply`.
        shuffle: shuffle the training views (with `random`'s seed); test views keep the order of their names.
        device: where the cameras' matrices are put; photographs and masks stay on `args.data_device`, or
            on the disk where `args.data_cache_mb` has no room for them.

    Attributes: `cameras_extent` (length scale of the scene), `class_ids` (sorted ids in the training masks),
    `notes` (what the data check told), `loaded_iter`, `model_path`.
    """

    def __init__(
        self,
        args: ModelParams,
        gaussians: GaussianModel | None,
        load_iteration: int | None = None,
        shuffle: bool = False,
        *,
        device: torch.device | str = "cpu",
        quiet: bool = False,
    ) -> None:
        self.model_path = args.model_path
        self.gaussians = gaussians
        point_clouds = Path(self.model_path, "point_cloud")
        self.loaded_iter = latest_iteration(point_clouds) if load_iteration == -1 else load_iteration
        info = read_scene(args)
        self.notes = self._examine(info, args)
        args = replace(args, data_device=checks.usable_device(args.data_device))
        store = PixelStore(args.data_cache_mb)
        self.train_cameras, areas = _load(info.train_cameras, args, device, "training views", quiet, store)
        self.test_cameras, _ = _load(info.test_cameras, args, device, "test views", quiet, store)
        if self.loaded_iter is None:
            self.notes += findings.settle(findings.judge_labels(areas, args))
        self.cameras_extent: float = info.nerf_normalization["radius"]
        self.class_ids = sorted({label for found in areas.values() for label in found})
        if shuffle:
            random.shuffle(self.train_cameras)
        if gaussians is None:
            return
        gaussians.origin = info.origin
        if self.loaded_iter is None:
            self._start_run(info)
            gaussians.create_from_pcd(info.point_cloud, self.cameras_extent)
        else:
            gaussians.load_ply(self._ply_path(self.loaded_iter))

    def _examine(self, info: SceneInfo, args: ModelParams) -> list[str]:
        """What there is to say before anything is read; of a trained run only what concerns its files."""
        for note in info.notes:
            findings.logger.warning(note)
        views = [*info.train_cameras, *info.test_cameras]
        sizes = findings.read_sizes(views)
        notes = info.notes + findings.settle(findings.judge_image_shapes(sizes))
        notes += findings.settle(findings.judge_mask_shapes(sizes))
        if self.loaded_iter is None:
            notes += findings.settle(findings.judge_mask_names(info, args))
            for judge in findings.QUICK:
                notes += findings.settle(judge(info, args), ("warning",))
        return notes

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
        self.gaussians.save_ply(self._ply_path(iteration))

    def _ply_path(self, iteration: int) -> Path:
        return Path(self.model_path, "point_cloud", f"iteration_{iteration}", "point_cloud.ply")

    def _start_run(self, info: SceneInfo) -> None:
        """Write what 3DGS's viewers read beside the model: every camera and the starting points."""
        views = [
            _camera_to_json(index, view, info.origin)
            for index, view in enumerate(info.test_cameras + info.train_cameras)
        ]
        with atomic_write(Path(self.model_path, "cameras.json")) as temporary:
            temporary.write_text(json.dumps(views), encoding="utf-8")
        write_point_cloud(
            Path(self.model_path, "input.ply"), info.point_cloud.points, info.point_cloud.colors, info.origin
        )


def _load(
    infos: list[CameraInfo],
    args: ModelParams,
    device: torch.device | str,
    what: str,
    quiet: bool,
    store: PixelStore,
) -> tuple[list[Camera], dict[str, dict[int, int]]]:
    """The cameras, and view name -> id -> pixels of their masks."""
    cameras: list[Camera] = []
    areas: dict[str, dict[int, int]] = {}
    pin = args.data_device == "cpu" and torch.device(device).type == "cuda"
    with ThreadPoolExecutor(READERS) as pool:
        views = pool.map(partial(load_camera, args=args, pin=pin), infos, range(len(infos)))
        bar = tqdm(views, total=len(infos), desc=f"Reading {what}", disable=quiet or not infos, leave=False)
        for info, camera in zip(infos, bar, strict=True):
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
