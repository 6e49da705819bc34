"""Photographs of a room corner with random textures, taken from known places."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

SIZE = (256, 192)  # width, height
FOCAL = 260.0
VIEWS = 8


def textures() -> np.ndarray:
    """Three textures (3,512,512,3) with detail at every scale, as SIFT needs it."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(3, 512, 512, 3))
    layers = [ndimage.gaussian_filter(noise, (0, sigma, sigma, 0)) * sigma for sigma in (1, 2, 4, 8, 16)]
    return np.clip(128 + 90 * sum(layers), 0, 255)


def camera(index: int) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera rotation (3,3) and centre (3,) of a view that looks into the corner at the origin."""
    angle = np.radians(25 + 40 * index / (VIEWS - 1))
    centre = 3.0 * np.array([np.cos(angle), np.sin(angle), 0.6 + 0.1 * (index % 3)])
    forward = np.array([0.4, 0.4, 0.4]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward]), centre


def photograph(index: int, texture: np.ndarray) -> Image.Image:
    """What view `index` sees of the planes x = 0, y = 0, z = 0."""
    rotation, centre = camera(index)
    width, height = SIZE
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(x - width / 2) / FOCAL, (y - height / 2) / FOCAL, np.ones_like(x)], -1) @ rotation
    with np.errstate(divide="ignore"):
        distances = np.where(rays < 0, -centre / rays, np.inf)  # (H, W, 3)
    plane = distances.argmin(axis=-1)
    hit = centre + distances.min(axis=-1)[..., None] * rays
    pixels = np.zeros((height, width, 3))
    for axis in range(3):
        u, v = (150.0 * np.delete(hit, axis, -1)[plane == axis]).T
        for channel in range(3):
            pixels[plane == axis, channel] = ndimage.map_coordinates(
                texture[axis, ..., channel], [u, v], order=1, mode="grid-wrap"
            )
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="session")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the photographs."""
    folder = tmp_path_factory.mktemp("corner")
    texture = textures()
    for index in range(VIEWS):
        photograph(index, texture).save(folder / f"view {index}.jpg", quality=95)
    return folder
