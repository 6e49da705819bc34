"""For tests: four balls of random Gaussians with ids, as a labelled model, and cameras around them."""

import math

import numpy as np
import torch

from gradiseg.labelled import LabelledModel
from scene.cameras import Camera
from scene.gaussian_model import parameter_shapes
from utils.sh import RGB2SH

PER_OBJECT, CLASSES = 60, 8
CENTRES = {1: (-1.0, -1.0, 0.0), 2: (1.0, -1.0, 0.0), 3: (-1.0, 1.0, 0.0), 4: (1.0, 1.0, 0.5)}
NAMES = {1: "duck", 2: "mug"}
SIZE = (64, 48)  # width, height


def labelled_scene(seed: int = 0) -> LabelledModel:
    """Objects 1 to 4; encodings vary from Gaussian to Gaussian, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)
    count = PER_OBJECT * len(CENTRES)
    params = {
        name: 0.3 * torch.randn(count, *shape, generator=generator)
        for name, shape in parameter_shapes(3).items()
    }
    ids = torch.tensor(list(CENTRES)).repeat_interleave(PER_OBJECT)
    params["xyz"] = params["xyz"] + torch.tensor([CENTRES[int(id)] for id in ids])
    params["f_dc"] = RGB2SH(torch.rand(count, 1, 3, generator=generator) * 0.6 + 0.2)
    params["f_rest"] = 0.2 * params["f_rest"]
    params["scaling"] = 0.3 * params["scaling"] - 2.2
    params["opacity"] = params["opacity"] + 1.5
    params["rotation"] = torch.randn(count, 4, generator=generator)
    params["obj_dc"] = params["obj_dc"] + 6.0 * torch.nn.functional.one_hot(ids, 16)[:, None].float()
    weight, bias = torch.eye(CLASSES, 16), torch.full((CLASSES,), -100.0)
    bias[: len(CENTRES) + 1] = 0.0
    bias[0] = 3.0  # id 0 where an object covers less than half of a pixel
    support = torch.tensor([0.9, 100.0]).repeat(count, 1)
    return LabelledModel(params, ids, weight, bias, dict(NAMES), support)


def camera(index: int = 0) -> Camera:
    """One of the views that look at the middle from a circle above, upright; up is +z."""
    angle = 2 * math.pi * index / 6
    centre = np.array([5 * math.cos(angle), 5 * math.sin(angle), 3.0])
    forward = -centre / np.linalg.norm(centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward], 1)  # columns: camera axes in the world
    width, height = SIZE
    intrinsics = (60.0, 60.0, width / 2, height / 2)
    return Camera(index, f"view_{index}", width, height, *intrinsics, rotation, -rotation.T @ centre)


def views() -> dict[str, Camera]:
    """Six of them by name."""
    return {camera(index).image_name: camera(index) for index in range(6)}
