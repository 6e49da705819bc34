"""For tests: a scene of two flat discs whose masks are known exactly, and a run that has "learned" it.

A disc that faces the camera projects to a circle, so every silhouette follows from a formula. The principal
point lies off the centre of the image, as COLMAP's do.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arguments import ModelParams, write_cfg_args
from gradiseg.evaluation.metrics import BoolArray
from scene import GaussianModel
from scene.colmap import ColmapCamera, ColmapImage, ColmapModel
from tests.colmap_files import write_model
from utils.general import inverse_sigmoid
from utils.sh import RGB2SH

WIDTH, HEIGHT, FOCAL, CX, CY = 144, 108, 180.0, 66.75, 57.5
DEPTH, SPACING, ITERATION = 4.0, 0.02, 30
CLASSES = 8


class Disc(NamedTuple):
    """Centre, radius, id and colour of a disc at depth `DEPTH`."""

    x: float
    y: float
    radius: float
    identity: int
    color: tuple[float, float, float]


DISCS = {
    "red disc": Disc(-0.55, -0.1, 0.5, 3, (0.9, 0.1, 0.1)),
    "blue disc": Disc(0.6, 0.15, 0.35, 5, (0.1, 0.1, 0.9)),
}
VIEWS = {f"view.{k}": (0.05 * k - 0.1, 0.04 * k) for k in range(6)}  # camera centre
TEST_VIEWS = ("view.1", "view.4")


def projected_centre(disc: Disc, view: str) -> tuple[float, float]:
    """Where a disc's centre lands in a view: pixels, the image covers [0, WIDTH] x [0, HEIGHT]."""
    x, y = VIEWS[view]
    return CX + FOCAL * (disc.x - x) / DEPTH, CY + FOCAL * (disc.y - y) / DEPTH


def silhouette(disc: Disc, view: str) -> BoolArray:
    """Pixels (H, W) whose centre, at integer + 1/2, the projected disc covers."""
    u, v = projected_centre(disc, view)
    rows, columns = np.indices((HEIGHT, WIDTH)) + 0.5
    return np.hypot(columns - u, rows - v) <= FOCAL * disc.radius / DEPTH


def disc_points(disc: Disc) -> Tensor:
    """A grid of points (P, 3) on the disc, symmetric about its centre."""
    steps = torch.arange(-disc.radius, disc.radius + SPACING, SPACING)
    x, y = torch.meshgrid(steps - steps.mean(), steps - steps.mean(), indexing="xy")
    inside = torch.hypot(x, y) <= disc.radius
    return torch.stack([disc.x + x[inside], disc.y + y[inside], torch.full_like(x[inside], DEPTH)], dim=1)


def disc_model() -> GaussianModel:
    """Small opaque Gaussians on both discs, with their colour and an encoding that says their id."""
    parts = [(disc_points(disc), disc) for disc in DISCS.values()]
    count = sum(len(points) for points, _ in parts)
    colors = torch.cat([torch.tensor([disc.color]).expand(len(points), 3) for points, disc in parts])
    ids = torch.cat([torch.full((len(points),), disc.identity) for points, disc in parts])
    model = GaussianModel(0)
    model.set_params(
        {
            "xyz": torch.cat([points for points, _ in parts]),
            "f_dc": RGB2SH(colors)[:, None],
            "f_rest": torch.zeros(count, 0, 3),
            "opacity": inverse_sigmoid(torch.full((count, 1), 0.95)),
            "scaling": torch.full((count, 3), math.log(0.5 * SPACING)),
            "rotation": torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
            "obj_dc": 20.0 * torch.nn.functional.one_hot(ids, 16)[:, None].float(),
        }
    )
    return model


def classifier_state() -> dict[str, Tensor]:
    """Class c's logit is channel c; the bias of id 0 makes a disc begin where it covers half the pixel."""
    bias = torch.zeros(CLASSES)
    bias[0] = 10.0
    return {"weight": torch.eye(CLASSES, 16)[:, :, None, None], "bias": bias}


def write_scene(folder: Path) -> None:
    """The scene in LERF-Mask layout: black photographs with the discs, masks with ids, exact test masks."""
    images = {
        index: ColmapImage(np.array([1.0, 0, 0, 0]), np.array([-x, -y, 0.0]), 1, f"{name}.png")
        for index, (name, (x, y)) in enumerate(VIEWS.items(), start=1)
    }
    points = np.concatenate([disc_points(disc)[::50].double().numpy() for disc in DISCS.values()])
    camera = ColmapCamera(WIDTH, HEIGHT, FOCAL, FOCAL, CX, CY)
    (folder / "sparse" / "0").mkdir(parents=True)
    write_model(
        folder / "sparse" / "0", ColmapModel({1: camera}, images, points, np.zeros_like(points, np.uint8))
    )
    for name in VIEWS:
        photograph, ids = np.zeros((HEIGHT, WIDTH, 3)), np.zeros((HEIGHT, WIDTH), np.uint8)
        for disc in DISCS.values():
            photograph[silhouette(disc, name)] = disc.color
            ids[silhouette(disc, name)] = disc.identity
        write_png(folder / "images" / f"{name}.png", np.rint(255 * photograph).astype(np.uint8))
        if name not in TEST_VIEWS:
            write_png(folder / "images_train" / f"{name}.png", np.zeros((1, 1), np.uint8))
            write_png(folder / "object_mask" / f"{name}.png", ids)
    for k, name in enumerate(TEST_VIEWS):
        for prompt, disc in DISCS.items():
            mask = silhouette(disc, name).astype(np.uint8) * 255
            write_png(folder / "test_mask" / str(k) / f"{prompt}.png", mask)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes a picture and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_run(folder: Path, scene: Path, resolution: int = 1) -> None:
    """A run of the scene as training leaves it."""
    saved = folder / "point_cloud" / f"iteration_{ITERATION}"
    saved.mkdir(parents=True)
    disc_model().save_ply(saved / "point_cloud.ply")
    torch.save(classifier_state(), saved / "classifier.pth")
    params = ModelParams(str(scene), str(folder), train_split=True, sh_degree=0, resolution=resolution)
    write_cfg_args(folder, params)
