"""A splat of another tool, and whether it belongs to a scene's cameras."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from arguments import ModelParams
from gaussian_renderer import render
from scene.cameras import Camera, load_camera
from scene.formats.files import read_gaussians
from scene.gaussian_model import GaussianModel
from scene.ply import NO_ORIGIN
from scene.views import BasicPointCloud, CameraInfo, SceneInfo
from utils.device import select_device
from utils.errors import UserError
from utils.image import psnr
from utils.sh import SH2RGB

CHECKED_VIEWS = 6
LEAST_PSNR = 16.0  # dB in the scene's views; with the splat of another scene it is about 10
POSES = {"cameras.json": "--cameras", "dataparser_transforms.json": "--dataparser"}  # what trainers leave
FOLDERS_UP = 4  # from a splat to its run: 3DGS has it in point_cloud/iteration_N
BETTER = 3.0  # dB by which another pose explains the photographs better, so that it is named
SAME_SIZE = 8.0  # factor by which the spread of Gaussians and points may differ; 4 on the demo

View = TypeVar("View")


def load_splat(
    path: str | os.PathLike[str], device: torch.device | str, origin: np.ndarray = NO_ORIGIN
) -> GaussianModel:
    """The Gaussians of a file in the frame of the scene at `origin` (3,), without identities.

    Raises: UserError as `read_gaussians`.
    """
    params = read_gaussians(path, origin)
    params["obj_dc"] = torch.zeros_like(params["obj_dc"])
    model = GaussianModel(math.isqrt(params["f_rest"].shape[1] + 1) - 1, device)
    model.set_params(params)
    model.active_sh_degree, model.origin = model.max_sh_degree, origin
    return model


def points_of(info: SceneInfo, model: GaussianModel) -> BasicPointCloud:
    """The points of the scene; of one that has none, the centres and colours of the splat."""
    if info.has_points:
        return info.point_cloud
    places, colors = (
        table.detach().double().cpu().numpy() for table in (model.get_xyz, model.params["f_dc"])
    )
    return BasicPointCloud(places, SH2RGB(colors[:, 0]).clip(0, 1))


@torch.no_grad()
def fit(model: GaussianModel, cameras: Sequence[Camera], background: Tensor) -> float:
    """Mean PSNR (dB) of the views."""
    scores = []
    for camera in cameras:
        drawn = render(camera, model, bg_color=background)["render"].clamp(0, 1)
        scores.append(float(psnr(drawn, camera.original_image)))
    return sum(scores) / len(scores)


def spread_over(views: Sequence[View]) -> list[View]:
    """Some of the views, as far from each other in their order as they can be."""
    return [views[i] for i in np.unique(np.linspace(0, len(views) - 1, CHECKED_VIEWS).round().astype(int))]


def check_fit(
    model: GaussianModel,
    cameras: Sequence[Camera],
    background: Tensor,
    points: np.ndarray,
    lowest: float = LEAST_PSNR,
    path: str | os.PathLike[str] = "",
) -> float:
    """The PSNR of some views spread over `cameras`; `points` (P, 3) are the scene's, `path` the splat's.

    Raises: UserError where it is below `lowest`, with what is probably wrong.
    """
    chosen = spread_over(cameras)
    found = fit(model, chosen, background)
    if found >= lowest:
        return found
    raise UserError(
        f"--ply: {found:.1f} dB PSNR in the scene's views, at least {lowest:g} expected: the splat and the "
        f"cameras do not belong together. {_cause(model, chosen, background, points, found)} "
        f"{_left_by_trainer(Path(path))}--min_psnr takes another limit."
    )


def load_for(ply: str, device: str, info: SceneInfo, views: Sequence[CameraInfo]) -> GaussianModel:
    """The splat of a scene, on the device of `--device`, held against some of its photographs.

    Raises: UserError as `load_splat` and `check_fit`.
    """
    on = select_device(device)
    model = load_splat(ply, on, info.origin)
    some = [load_camera(replace(view, mask_path=None), 0, ModelParams()) for view in spread_over(views)]
    cameras = [camera.with_matrices_on(on) for camera in some]
    check_fit(model, cameras, torch.zeros(3, device=on), points_of(info, model).points, path=ply)
    return model


def small_camera(view: CameraInfo, longest: int, device: torch.device) -> Camera:
    """A view whose longest side has at most `longest` pixels, to be rendered only."""
    width, height = reduced((view.width, view.height), longest)
    x, y = width / view.width, height / view.height
    lens = (view.fx * x, view.fy * y, view.cx * x, view.cy * y)
    return Camera(0, view.image_name, width, height, *lens, view.R, view.T).with_matrices_on(device)


def reduced(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """A width and height of the same proportions whose longer one is at most `longest`."""
    step = min(1.0, longest / max(size))
    return max(1, round(step * size[0])), max(1, round(step * size[1]))


def _left_by_trainer(path: Path) -> str:
    """Which file of poses near the splat to try, if there is one."""
    for folder in list(path.absolute().parents)[:FOLDERS_UP]:
        for name, option in POSES.items():
            if (folder / name).is_file():
                return f"Near it lies {folder / name}: try {option} with it. "
    return ""


def _cause(
    model: GaussianModel, cameras: Sequence[Camera], background: Tensor, points: np.ndarray, found: float
) -> str:
    """What is probably wrong, in a sentence or two."""
    best, name = max((fit(model, views, background), name) for name, views in _other_poses(cameras))
    if best > found + BETTER:
        return f"With {name} it would be {best:.1f} dB. Export it in the scene's own coordinates."
    size = spread(model.get_xyz.detach().cpu().numpy()) / spread(points)
    if not 1 / SAME_SIZE < size < SAME_SIZE:
        return (
            f"Its Gaussians spread {size:.2g} times as far as the scene's points: it has another scale, or "
            "is of another scene. Give the poses of its training: --cameras takes 3DGS's cameras.json or a "
            "transforms.json, --dataparser nerfstudio's dataparser_transforms.json."
        )
    return (
        "It is of another scene or scale, or was trained with other poses: give -s the folder whose sparse/0 "
        "(or transforms.json) it was trained from, with undistorted images and their principal point, or "
        "its own poses by --cameras (cameras.json, transforms.json) and --dataparser (nerfstudio)."
    )


def spread(points: np.ndarray) -> float:
    """Median distance of points (P, 3) from their median."""
    return float(np.median(np.linalg.norm(points - np.median(points, 0), axis=1)))


def _other_poses(cameras: Sequence[Camera]) -> Iterator[tuple[str, list[Camera]]]:
    """The views under usual mistakes: principal point, OpenGL's axes, a scene that is turned by quarters."""
    yield "the principal point in the middle", [_centred(camera) for camera in cameras]
    flip = np.diag([1.0, -1.0, -1.0])
    yield "OpenGL's axes of the cameras (y up, z back)", [_posed(c, c.R @ flip, c.R @ c.T) for c in cameras]
    for turn in quarter_turns():
        axes = ", ".join(f"{'-' if row.sum() < 0 else ''}{'xyz'[int(abs(row).argmax())]}" for row in turn)
        turned = [_posed(c, turn @ c.R, turn @ c.R @ c.T) for c in cameras]
        yield f"the scene's x, y, z turned to {axes}", turned


def quarter_turns() -> list[np.ndarray]:
    """The 23 rotations (3, 3) that map the axes onto each other, without the identity."""
    signs = np.array(np.meshgrid(*[[1.0, -1.0]] * 3)).reshape(3, -1).T
    orders = [np.eye(3)[list(p)] for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))]
    turns = [row[:, None] * order for order in orders for row in signs]
    return [turn for turn in turns if np.linalg.det(turn) > 0 and not np.array_equal(turn, np.eye(3))]


def _centred(camera: Camera) -> Camera:
    return _with(camera, camera.image_width / 2, camera.image_height / 2, camera.R, camera.T)


def _posed(camera: Camera, R: np.ndarray, moved: np.ndarray) -> Camera:
    """The view with another rotation; `moved` (3,) is minus its centre."""
    return _with(camera, camera.cx, camera.cy, R, R.T @ moved)


def _with(camera: Camera, cx: float, cy: float, R: np.ndarray, T: np.ndarray) -> Camera:
    size = (camera.image_width, camera.image_height)
    intrinsics = (camera.fx, camera.fy, cx, cy)
    other = Camera(camera.uid, camera.image_name, *size, *intrinsics, R, T, camera.image_uint8)
    return other.with_matrices_on(camera.world_view_transform.device)
