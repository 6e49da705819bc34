"""Readers: splits, names and poses of COLMAP and Blender scenes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arguments import ModelParams
from scene.colmap import ColmapModel, read_model
from scene.dataset_readers import read_scene
from tests.colmap_files import write_model
from utils.errors import UserError

DEMO = Path(__file__).parents[2] / "data" / "demo"


def test_the_demo_scene() -> None:
    scene = read_scene(ModelParams(source_path=str(DEMO), train_split=True))
    prompts = json.loads((DEMO / "prompts.json").read_text())
    assert len(scene.train_cameras) == 36 and len(scene.test_cameras) == 6
    assert len(scene.point_cloud.points) == 858
    assert [view.image_name for view in scene.test_cameras] == prompts["test_views"]
    assert all(view.mask_path for view in scene.train_cameras)
    assert not any(view.mask_path for view in scene.test_cameras)
    assert scene.point_cloud.colors.min() >= 0 and scene.point_cloud.colors.max() <= 1


def test_points_of_the_demo_project_into_its_images() -> None:
    scene = read_scene(ModelParams(source_path=str(DEMO)))
    view = scene.train_cameras[0]
    in_camera = scene.point_cloud.points @ view.R + view.T
    in_front = in_camera[in_camera[:, 2] > 0]
    pixels = in_front[:, :2] / in_front[:, 2:] * [view.fx, view.fy] + [view.cx, view.cy]
    inside = ((pixels > 0) & (pixels < [view.width, view.height])).all(axis=1)
    assert len(in_front) > 0.9 * len(in_camera) and inside.mean() > 0.5


def test_binary_and_text_models_give_one_scene(scene_folder: Path) -> None:
    model_folder = scene_folder / "sparse" / "0"
    binary = read_scene(ModelParams(source_path=str(scene_folder)))
    write_model(model_folder, read_model(model_folder), text=True)
    for path in model_folder.glob("*.bin"):
        path.unlink()
    text = read_scene(ModelParams(source_path=str(scene_folder)))
    for first, second in zip(binary.train_cameras, text.train_cameras, strict=True):
        np.testing.assert_array_equal(np.c_[first.R, first.T], np.c_[second.R, second.T])
    np.testing.assert_array_equal(binary.point_cloud.points, text.point_cloud.points)


def test_splits(scene_folder: Path) -> None:
    def names(**options: bool) -> tuple[list[str], list[str]]:
        scene = read_scene(ModelParams(source_path=str(scene_folder), **options))  # type: ignore[arg-type]
        return [v.image_name for v in scene.train_cameras], [v.image_name for v in scene.test_cameras]

    assert names() == (["v.1", "v.2", "v.3"], [])
    assert names(eval=True) == (["v.2", "v.3"], ["v.1"])
    assert names(train_split=True) == (["v.1", "v.2"], ["v.3"])
    assert names(train_split=True, eval=True) == (["v.1", "v.2"], ["v.3"])


def test_every_eighth_image_tests() -> None:
    scene = read_scene(ModelParams(source_path=str(DEMO), eval=True))
    assert [view.image_name for view in scene.test_cameras] == [f"frame_{i:05d}" for i in range(1, 43, 8)]
    assert len(scene.train_cameras) == 36


def test_the_extent_is_the_cameras_radius_with_margin(scene_folder: Path) -> None:
    scene = read_scene(ModelParams(source_path=str(scene_folder)))
    centers = np.stack([-view.R @ view.T for view in scene.train_cameras])
    radius = np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()
    assert scene.nerf_normalization["radius"] == pytest.approx(1.1 * radius)


def test_one_camera_still_has_an_extent(scene_folder: Path) -> None:
    (scene_folder / "images_train" / "v.2.png").unlink()
    assert (
        read_scene(ModelParams(source_path=str(scene_folder), train_split=True)).nerf_normalization["radius"]
        > 0.1
    )


def blender_scene(folder: Path) -> Path:
    """Two training views and a test view, looking at the origin from +z (OpenGL: cameras look along -z)."""
    for split, count in (("train", 2), ("test", 1)):
        frames = []
        for index in range(count):
            (folder / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (20, 10), (255, 0, 0, 255)).save(folder / split / f"r_{index}.png")
            matrix = np.eye(4)
            matrix[:3, 3] = [index, 0, 4]
            frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": matrix.tolist()})
        content = {"camera_angle_x": 0.6, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    (folder / "object_mask").mkdir()
    Image.new("L", (20, 10), 1).save(folder / "object_mask" / "r_0.png")
    return folder


def test_blender_scenes(tmp_path: Path) -> None:
    folder = blender_scene(tmp_path)
    scene = read_scene(ModelParams(source_path=str(folder), eval=True))
    assert (len(scene.train_cameras), len(scene.test_cameras)) == (2, 1)
    view = scene.train_cameras[0]
    np.testing.assert_allclose(np.zeros(3) @ view.R + view.T, [0, 0, 4])  # the origin lies ahead
    np.testing.assert_allclose(np.array([0, 1, 0]) @ view.R + view.T, [0, -1, 4])  # up is -y in the image
    assert view.fx == view.fy == pytest.approx(10 / np.tan(0.3)) and (view.cx, view.cy) == (10, 5)
    assert view.mask_path and not scene.test_cameras[0].mask_path  # masks are the training views'
    assert len(scene.point_cloud.points) == 100_000
    merged = read_scene(ModelParams(source_path=str(folder)))
    assert (len(merged.train_cameras), len(merged.test_cameras)) == (3, 0)


def test_a_name_is_one_view_where_both_files_of_blender_use_it(tmp_path: Path) -> None:
    folder = blender_scene(tmp_path)
    (folder / "object_mask" / "test").mkdir()
    Image.new("L", (20, 10), 2).save(folder / "object_mask" / "test" / "r_0.png")
    for evaluates in (False, True):
        scene = read_scene(ModelParams(source_path=str(folder), eval=evaluates))
        views = [*scene.train_cameras, *scene.test_cameras]
        assert [view.image_name for view in views] == ["r_0", "r_1", "test/r_0"]
        assert [view.image_path.parent.name for view in views] == ["train", "train", "test"]
        masks = [view.mask_path for view in views]
        assert masks == [folder / "object_mask/r_0.png", None, folder / "object_mask/test/r_0.png"]


def test_two_images_of_a_model_that_would_share_a_name_are_refused(
    scene_folder: Path, scene_model: ColmapModel
) -> None:
    twin = replace(scene_model.images[1], name="v.1.jpg")
    images = scene_model.images | {4: twin}
    write_model(scene_folder / "sparse" / "0", replace(scene_model, images=images))
    with pytest.raises(UserError, match=r"v\.1\.png and v\.1\.jpg differ in suffix alone"):
        read_scene(ModelParams(source_path=str(scene_folder)))


def nerfstudio_scene(folder: Path, **content: object) -> Path:
    """A transforms.json of ten views in images/."""
    (folder / "images").mkdir()
    frames = []
    for index in range(10):
        Image.new("RGB", (20, 10)).save(folder / "images" / f"{index}.png")
        matrix = np.eye(4)
        matrix[:3, 3] = [index, 0, 4]
        frames.append({"file_path": f"images/{index}.png", "transform_matrix": matrix.tolist()})
    content = {"fl_x": 20, "frames": frames, **content}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def test_the_split_is_nerfstudios_where_its_file_says_one(tmp_path: Path) -> None:
    train = [f"images/{index}.png" for index in (1, 2, 5)]
    source = str(nerfstudio_scene(tmp_path, train_filenames=train, test_filenames=["images/3.png"]))
    names = [view.image_name for view in read_scene(ModelParams(source, eval=True)).train_cameras]
    assert names == ["1", "2", "5"]
    assert len(read_scene(ModelParams(source, eval=True)).test_cameras) == 7
    assert not read_scene(ModelParams(source)).test_cameras


def test_lists_of_a_split_that_are_none_are_named(tmp_path: Path) -> None:
    source = str(nerfstudio_scene(tmp_path, train_filenames="images/1.png"))
    with pytest.raises(UserError, match=r"transforms\.json: train_filenames must be a list"):
        read_scene(ModelParams(source, eval=True))


def test_a_folder_of_images_without_effect_is_told(tmp_path: Path) -> None:
    source = str(nerfstudio_scene(tmp_path))
    assert not read_scene(ModelParams(source)).notes
    for cameras in ("", f"{source}/transforms.json"):
        (note,) = read_scene(ModelParams(source, images="images_2", cameras=cameras)).notes
        assert note.startswith("-i images_2 has no effect") and "transforms.json" in note


def test_a_malformed_transforms_file_is_named(tmp_path: Path) -> None:
    folder = blender_scene(tmp_path)
    for content in (
        "{",
        "{}",
        '{"camera_angle_x": 1, "frames": [{"file_path": "a", "transform_matrix": [1]}]}',
    ):
        (folder / "transforms_train.json").write_text(content)
        with pytest.raises(UserError, match=r"transforms_train\.json"):
            read_scene(ModelParams(source_path=str(folder)))
