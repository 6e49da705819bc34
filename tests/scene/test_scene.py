"""A scene under training: what it holds and what it writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arguments import ModelParams
from scene import Scene
from scene.ply import read_point_cloud
from utils.errors import UserError

DEMO = Path(__file__).parents[2] / "data" / "demo"


class RecordingModel:
    """Stands for a GaussianModel: Scene uses no more than these three methods."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def create_from_pcd(self, pcd: Any, spatial_lr_scale: float) -> None:
        self.calls.append(("create", len(pcd.points), spatial_lr_scale))

    def save_ply(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        path.touch()

    def load_ply(self, path: Path) -> None:
        self.calls.append(("load", path))


def demo(model_path: Path, model: Any, **options: Any) -> Scene:
    return Scene(
        ModelParams(source_path=str(DEMO), model_path=str(model_path), train_split=True),
        model,
        **options,
    )


def test_the_demo_scene_is_loaded_whole(tmp_path: Path) -> None:
    scene = demo(tmp_path, None)
    assert len(scene.getTrainCameras()) == 36 and len(scene.getTestCameras()) == 6
    assert scene.class_ids == list(range(12)) and scene.notes == []
    camera = scene.getTrainCameras()[0]
    assert camera.original_image.shape == (3, 120, 160) and camera.is_masked
    assert list(tmp_path.iterdir()) == []  # views alone write nothing


def test_a_new_run_writes_cameras_and_points_when_told(tmp_path: Path) -> None:
    model = RecordingModel()
    scene = demo(tmp_path, model)
    assert model.calls == [("create", 858, scene.cameras_extent)]
    assert list(tmp_path.iterdir()) == []
    scene.write_start()
    assert len(read_point_cloud(tmp_path / "input.ply")[0]) == 858
    views = json.loads((tmp_path / "cameras.json").read_text())
    assert [view["id"] for view in views] == list(range(42))
    fields = ["id", "img_name", "width", "height", "position", "rotation", "fy", "fx", "cx", "cy"]
    assert list(views[0]) == fields
    by_name = {view["img_name"]: view for view in views}
    camera = scene.getTrainCameras()[5]
    np.testing.assert_allclose(by_name[camera.image_name]["position"], camera.camera_center, atol=1e-5)
    np.testing.assert_allclose(by_name[camera.image_name]["rotation"], camera.R, atol=1e-6)


def test_saved_models_are_found_again(tmp_path: Path) -> None:
    scene = demo(tmp_path, RecordingModel())
    for iteration in (900, 3000):
        scene.save(iteration)
    path = tmp_path / "point_cloud" / "iteration_3000" / "point_cloud.ply"
    assert path.is_file()
    model = RecordingModel()
    loaded = demo(tmp_path, model, load_iteration=-1)
    assert loaded.loaded_iter == 3000 and model.calls == [("load", path)]
    assert demo(tmp_path, model, load_iteration=900).loaded_iter == 900
    with pytest.raises(UserError, match="iteration_N"):
        demo(tmp_path / "other", model, load_iteration=-1)
