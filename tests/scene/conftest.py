"""A scene of three views on disk that tests may damage."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene.colmap import ColmapCamera, ColmapImage, ColmapModel
from tests.colmap_files import write_model

NAMES = ("v.1.png", "v.2.png", "v.3.png")


@pytest.fixture
def scene_model() -> ColmapModel:
    generator = np.random.default_rng(0)
    images = {
        index + 1: ColmapImage(np.array([1.0, 0.1 * index, 0.0, 0.0]), generator.normal(size=3), 1, name)
        for index, name in enumerate(NAMES)
    }
    colors = generator.integers(0, 256, (20, 3)).astype(np.uint8)
    camera = ColmapCamera(24, 16, 20.0, 21.0, 11.0, 8.5)
    return ColmapModel({1: camera}, images, generator.normal(size=(20, 3)), colors)


@pytest.fixture
def scene_folder(tmp_path: Path, scene_model: ColmapModel) -> Path:
    folder = tmp_path / "scene"
    write_model(folder / "sparse" / "0", scene_model)
    generator = np.random.default_rng(1)
    for sub in ("images", "images_train", "object_mask"):
        (folder / sub).mkdir()
    for name in NAMES:
        pixels = generator.integers(0, 256, (16, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        ids = generator.choice([0, 2, 5], (16, 24)).astype(np.uint8)
        Image.fromarray(ids).save(folder / "object_mask" / name)
    for name in NAMES[:2]:
        (folder / "images_train" / name).touch()
    return folder
