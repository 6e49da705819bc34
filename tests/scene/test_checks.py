"""Damaged scenes are refused with the file, the field and the remedy."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arguments import ModelParams
from scene import Scene
from scene.colmap import ColmapModel
from tests.colmap_files import write_model
from utils.errors import UserError


def load(folder: Path, **options: object) -> Scene:
    return Scene(ModelParams(source_path=str(folder), **options), None)  # type: ignore[arg-type]


def refusal(folder: Path, **options: object) -> str:
    with pytest.raises(UserError) as error:
        load(folder, **options)
    return str(error.value)


def of_masks(scene: Scene) -> list[str]:
    """Notes about masks; the small scene has few points and views far apart, too."""
    return [note for note in scene.notes if "mask" in note and "images_train" not in note]


def rewrite(folder: Path, model: ColmapModel) -> None:
    write_model(folder / "sparse" / "0", model)


def test_an_intact_scene_has_no_notes(scene_folder: Path) -> None:
    assert of_masks(load(scene_folder)) == []


def test_a_source_path_that_is_not_there(tmp_path: Path) -> None:
    assert "absent" in refusal(tmp_path / "absent")
    assert "-s" in refusal(Path(""))
    assert "sparse/0" in refusal(tmp_path)


def test_a_model_that_is_not_complete(scene_folder: Path) -> None:
    (scene_folder / "sparse" / "0" / "images.bin").unlink()
    message = refusal(scene_folder)
    assert "images" in message and "points3D (" not in message


def test_an_image_in_the_model_but_not_on_disk(scene_folder: Path) -> None:
    (scene_folder / "images" / "v.2.png").unlink()
    message = refusal(scene_folder)
    assert "v.2.png" in message and "-i" in message
    assert "images_4" in refusal(scene_folder, images="images_4")


@pytest.mark.parametrize("folder", ["images", "object_mask"])
def test_a_truncated_file(scene_folder: Path, folder: str) -> None:
    path = scene_folder / folder / "v.2.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refusal(scene_folder)
    path.write_bytes(b"")
    assert str(path) in refusal(scene_folder)


def test_an_image_of_another_shape_than_its_camera(scene_folder: Path) -> None:
    Image.new("RGB", (16, 24)).save(scene_folder / "images" / "v.1.png")
    message = refusal(scene_folder)
    assert "v.1.png" in message and "16x24" in message and "24x16" in message


def test_masks_of_another_size_are_resized_and_told_once(
    scene_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("v.1.png", "v.3.png"):
        Image.fromarray(np.full((32, 48), 2, dtype=np.uint8)).save(scene_folder / "object_mask" / name)
    scene = load(scene_folder)
    assert scene.notes == [record.getMessage() for record in caplog.records]
    (note,) = of_masks(scene)
    assert "2 masks" in note and "v.1" in note
    for camera in scene.getTrainCameras():
        assert camera.objects is not None and tuple(camera.objects.shape) == (16, 24)


def test_missing_masks_train_on_colour_and_are_told_once(scene_folder: Path) -> None:
    (scene_folder / "object_mask" / "v.2.png").unlink()
    scene = load(scene_folder)
    (note,) = of_masks(scene)
    assert "1 of 3" in note and "v.2" in note
    assert [camera.is_masked for camera in scene.getTrainCameras()] == [True, False, True]
    assert "nowhere: no masks of training views" in refusal(scene_folder, object_path="nowhere")


def test_a_missing_mask_of_a_test_view_is_no_news(scene_folder: Path) -> None:
    (scene_folder / "object_mask" / "v.3.png").unlink()
    assert of_masks(load(scene_folder, train_split=True)) == []


def test_an_id_without_a_class(scene_folder: Path) -> None:
    assert load(scene_folder, num_classes=6).class_ids == [0, 2, 5]
    message = refusal(scene_folder, num_classes=5)
    assert "object_mask" in message and "id 5" in message and "--num_classes 6" in message


def test_no_training_views(scene_folder: Path) -> None:
    for path in (scene_folder / "images_train").iterdir():
        path.unlink()
    assert "no training views" in refusal(scene_folder, train_split=True)
    (scene_folder / "images_train").rmdir()
    assert "images_train" in refusal(scene_folder, train_split=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_poses_and_points_that_are_no_numbers(
    scene_folder: Path, scene_model: ColmapModel, bad: float
) -> None:
    image = scene_model.images[2]
    broken = dataclasses.replace(image, tvec=np.array([0.0, bad, 0.0]))
    rewrite(scene_folder, dataclasses.replace(scene_model, images={**scene_model.images, 2: broken}))
    assert "v.2" in refusal(scene_folder)
    zero = dataclasses.replace(image, qvec=np.zeros(4))
    rewrite(scene_folder, dataclasses.replace(scene_model, images={**scene_model.images, 2: zero}))
    assert "v.2" in refusal(scene_folder)
    points = scene_model.points.copy()
    points[3, 1] = bad
    rewrite(scene_folder, dataclasses.replace(scene_model, points=points))
    assert "1 of 20" in refusal(scene_folder)


def test_an_empty_point_cloud(scene_folder: Path, scene_model: ColmapModel) -> None:
    empty = dataclasses.replace(scene_model, points=np.zeros((0, 3)), colors=np.zeros((0, 3), np.uint8))
    rewrite(scene_folder, empty)
    assert "empty" in refusal(scene_folder)


@pytest.mark.parametrize("there", [False, True], ids=["without a GPU", "beside a GPU"])
def test_a_run_made_with_a_gpu_opens_on_a_cpu(
    scene_folder: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert load(scene_folder, data_device="cuda").getTrainCameras()[0].original_image.device.type == "cpu"
