"""Inputs after public reports of this field's users: each is read right, or refused in one sentence.

docs/troubleshooting.md has the table of kinds; more of the same kinds stand with the readers' tests.
"""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from arguments import ModelParams
from gradiseg import checkpoint
from gradiseg.evaluation.lerf_mask import evaluate_folder
from gradiseg.evaluation.masks import list_truth, read_mask, write_mask
from scene import GaussianModel, Scene
from scene.colmap import ColmapModel, read_model
from scene.dataset_readers import read_scene
from scene.names import visible_files
from scene.ply import write_point_cloud
from scene.run_folder import RunFolder
from tests.colmap_files import write_model
from utils.errors import UserError, explain, run_command
from utils.files import atomic_write
from utils.graphics import quaternion_to_matrix

NAMES = ("v.1.png", "v.2.png", "v.3.png")  # of `scene_folder`


def params(folder: Path, **options: object) -> ModelParams:
    return ModelParams(source_path=str(folder), **options)  # type: ignore[arg-type]


def load(folder: Path, **options: object) -> Scene:
    """What a training reads before it begins."""
    return Scene(params(folder, **options), GaussianModel(0))


def refusal(folder: Path, **options: object) -> str:
    with pytest.raises(UserError) as error:
        load(folder, **options)
    return str(error.value)


def notes(folder: Path, **options: object) -> str:
    return "\n".join(load(folder, **options).notes)


# Scenes of COLMAP.


def as_text(folder: Path) -> Path:
    """The scene's model as text."""
    model = folder / "sparse" / "0"
    write_model(model, read_model(model), text=True)
    for path in model.glob("*.bin"):
        path.unlink()
    return model


@pytest.mark.parametrize("between", ["\n", "\n\n\n"], ids=["one line each", "two blank lines"])
def test_images_txt_written_by_hand(scene_folder: Path, between: str) -> None:
    path = as_text(scene_folder) / "images.txt"
    path.write_text(between.join(line for line in path.read_text().splitlines() if line))
    assert [view.image_name for view in load(scene_folder).train_cameras] == ["v.1", "v.2", "v.3"]


def test_a_text_model_with_a_byte_order_mark(scene_folder: Path) -> None:
    for path in as_text(scene_folder).iterdir():
        path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert len(load(scene_folder).train_cameras) == 3


def test_points3d_txt_without_ids(scene_folder: Path) -> None:
    path = as_text(scene_folder) / "points3D.txt"
    path.write_text("\n".join(line.split(maxsplit=1)[1] for line in path.read_text().splitlines()))
    assert "points3D.txt: line 1: POINT3D_ID must be an integer" in refusal(scene_folder)


def test_the_larger_of_two_models_is_taken_and_told(scene_folder: Path, scene_model: ColmapModel) -> None:
    part = dataclasses.replace(scene_model, images={1: scene_model.images[1]})
    (scene_folder / "sparse" / "0").rename(scene_folder / "sparse" / "1")
    write_model(scene_folder / "sparse" / "0", part)
    assert len(load(scene_folder).train_cameras) == 3
    assert "0 has 1, 1 has 3 images" in notes(scene_folder)
    assert read_scene(params(scene_folder)).model_folder == scene_folder / "sparse" / "1"


@pytest.mark.parametrize("place", ["sparse", "sparse/2", "colmap/sparse/0"])
def test_a_model_in_another_usual_place(scene_folder: Path, place: str) -> None:
    shutil.move(scene_folder / "sparse" / "0", scene_folder / "moved")
    shutil.rmtree(scene_folder / "sparse")
    (scene_folder / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(scene_folder / "moved", scene_folder / place)
    assert len(load(scene_folder).train_cameras) == 3


def test_survey_coordinates_give_the_same_scene_and_stay_in_the_files(
    scene_folder: Path, scene_model: ColmapModel, tmp_path: Path
) -> None:
    offset = np.array([500_000.0, 4_500_000.0, 100.0])
    near = read_scene(params(scene_folder))
    images = {
        key: dataclasses.replace(image, tvec=image.tvec - quaternion_to_matrix(image.qvec) @ offset)
        for key, image in scene_model.images.items()
    }
    moved = dataclasses.replace(scene_model, images=images, points=scene_model.points + offset)
    write_model(scene_folder / "sparse" / "0", moved)
    far = read_scene(params(scene_folder))
    assert near.origin.tolist() == [0, 0, 0] and np.linalg.norm(far.origin - offset) < 10
    shift = far.origin - offset  # of the scene's own frame against the near scene
    for first, second in zip(near.train_cameras, far.train_cameras, strict=True):
        np.testing.assert_allclose(second.T, first.T + first.R.T @ shift, atol=1e-8)
    np.testing.assert_allclose(far.point_cloud.points, near.point_cloud.points - shift, atol=1e-8)
    assert far.nerf_normalization["radius"] == pytest.approx(near.nerf_normalization["radius"], abs=1e-8)

    model = GaussianModel(0)
    scene = Scene(params(scene_folder, model_path=str(tmp_path / "run")), model)
    assert "coordinates around (" in "\n".join(scene.notes)
    scene.write_start()
    positions = [view["position"] for view in json.loads((tmp_path / "run" / "cameras.json").read_text())]
    expected = [-view.R @ view.T + offset for view in near.train_cameras]
    np.testing.assert_allclose(positions, expected, rtol=0, atol=1e-6)
    model.save_ply(tmp_path / "a.ply")
    again = GaussianModel(0)
    again.origin = far.origin
    again.load_ply(tmp_path / "a.ply")
    torch.testing.assert_close(again.get_xyz, model.get_xyz, rtol=0, atol=1e-8)
    assert float(model.get_xyz.detach().abs().max()) < 20


# Scenes of JSON.


def json_scene(folder: Path, name: str = "transforms_train.json", **content: Any) -> Path:
    """Two views of 20 x 10 pixels and a red cloud."""
    frames = []
    (folder / "train").mkdir(parents=True)
    (folder / "object_mask").mkdir()
    for index in range(2):
        Image.new("RGB", (20, 10), (9, 90, 200)).save(folder / "train" / f"r_{index}.png")
        Image.fromarray(np.tile(np.array([0, 1], np.uint8), (10, 10))).save(
            folder / "object_mask" / f"r_{index}.png"
        )
        matrix = np.eye(4)
        matrix[:3, 3] = [index, 0, 4]
        frames.append({"file_path": f"./train/r_{index}", "transform_matrix": matrix.tolist()})
    text = json.dumps({"camera_angle_x": 0.6, "frames": frames, **content})
    (folder / name).write_text(text, encoding="utf-8-sig")
    write_point_cloud(folder / "points3d.ply", np.eye(3), np.tile([1.0, 0.0, 0.0], (3, 1)))
    return folder


def edit_json(folder: Path, change) -> None:
    path = folder / "transforms_train.json"
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    change(content)
    path.write_text(json.dumps(content))


def test_instant_ngps_intrinsics_are_used(tmp_path: Path) -> None:
    lens: dict[str, Any] = {"fl_x": 30.0, "fl_y": 31.0, "cx": 7.0, "cy": 4.0, "w": 40, "h": 20, "k1": 0.0}
    view = read_scene(params(json_scene(tmp_path / "a", **lens))).train_cameras[0]
    assert (view.fx, view.fy, view.cx, view.cy, view.width, view.height) == (30, 31, 7, 4, 40, 20)


def test_intrinsics_of_a_frame_count_more(tmp_path: Path) -> None:
    folder = json_scene(tmp_path / "a", fl_x=30.0, cx=7.0)
    edit_json(folder, lambda content: content["frames"][1].update(fl_x=50.0, cy=3.0))
    first, second = read_scene(params(folder)).train_cameras
    assert (first.fx, first.fy, first.cx, first.cy) == (30, 30, 7, 5)
    assert (second.fx, second.fy, second.cx, second.cy) == (50, 50, 7, 3)


@pytest.mark.parametrize(
    "lens", [{"k1": 0.1}, {"p2": -1e-3}, {"is_fisheye": True}, {"camera_model": "OPENCV_FISHEYE"}]
)
def test_a_lens_that_distorts_is_refused(tmp_path: Path, lens: dict) -> None:
    assert "the lens distorts" in refusal(json_scene(tmp_path / "a", **lens))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("camera_angle_x"), "neither fl_x"),
        (lambda c: c.update(fl_x="30"), "fl_x must be a number"),
        (lambda c: c.update(camera_angle_x=57.0), "radians"),
        (lambda c: c.update(w=20.5, h=10), "pixels"),
        (lambda c: c.update(frames={}), "list of frames"),
        (lambda c: c["frames"].append("r_2"), "frame 2 must be an object"),
        (lambda c: c["frames"][1].update(transform_matrix=[[1]]), r"frame 1 .*4x4"),
        (lambda c: c["frames"][1].update(file_path="train/r_7"), r"train/r_7 is not there"),
        (lambda c: c["frames"][1].update(file_path="r" * 5000), r"rrr is not there"),
        (lambda c: c["frames"].append(c["frames"][0]), "two frames"),
        (lambda c: c.update(ply_file_path="lost.ply"), "ply_file_path"),
        (lambda c: c.update(ply_file_path="[" * 5000), "ply_file_path"),
    ],
)
def test_what_is_wrong_in_a_json_is_named(tmp_path: Path, change, message: str) -> None:
    folder = json_scene(tmp_path / "a")
    edit_json(folder, change)
    with pytest.raises(UserError, match=message):
        read_scene(params(folder))


@pytest.mark.parametrize("named", ["./train/r_0", "train/r_0.webp", "train\\r_0.png", "train/R_0"])
def test_a_picture_under_another_suffix_is_found(tmp_path: Path, named: str) -> None:
    folder = json_scene(tmp_path / "a")
    edit_json(folder, lambda content: content["frames"][0].update(file_path=named))
    (folder / "train" / "r_0.png").rename(folder / "train" / "r_0.JPG")
    views = read_scene(params(folder)).train_cameras
    assert {view.image_path.name for view in views} == {"r_0.JPG", "r_1.png"}
    assert all(view.mask_path for view in views)


@pytest.mark.parametrize("name", ["points3D.ply", "sparse_pc.ply", "cloud.ply"])
def test_a_point_cloud_by_another_name(tmp_path: Path, name: str) -> None:
    folder = json_scene(tmp_path / "a")
    (folder / "points3d.ply").rename(folder / name)
    assert len(read_scene(params(folder)).point_cloud.points) == 3
    (folder / name).unlink()
    assert "no points3d.ply, so training starts from 100,000 random points" in notes(folder)


def test_a_sparse_folder_beside_the_json(tmp_path: Path) -> None:
    folder = json_scene(tmp_path / "a")
    (folder / "sparse").mkdir()
    (folder / "sparse" / "readme.txt").touch()
    assert len(read_scene(params(folder)).train_cameras) == 2


def test_nerfstudios_transforms_json_alone(tmp_path: Path) -> None:
    folder = json_scene(tmp_path / "a", name="transforms.json", applied_transform=[[1, 0, 0, 0]])
    scene = read_scene(params(folder, eval=True))
    assert (len(scene.train_cameras), len(scene.test_cameras)) == (1, 1)


# Masks.


@pytest.mark.parametrize(
    "name", ["{stem}.png.png", "{stem}.PNG", "{stem}.mask.png", "Annotations/{stem}.png", "{stem}_mask.png"]
)
def test_masks_under_other_names(scene_folder: Path, name: str) -> None:
    folder = scene_folder / "object_mask"
    (folder / "._v.1.png").write_bytes(b"\0\5\26\7")
    for path in NAMES:
        target = folder / name.format(stem=Path(path).stem)
        target.parent.mkdir(exist_ok=True)
        (folder / path).rename(target)
    assert load(scene_folder).class_ids == [0, 2, 5]


def test_a_mask_under_its_views_own_name_comes_before_endings(scene_folder: Path) -> None:
    masks, images = scene_folder / "object_mask", scene_folder / "images"
    with Image.open(images / "v.3.png") as photo:
        photo.save(images / "v.1_mask.png")
    model = read_model(scene_folder / "sparse" / "0")
    model.images[3] = dataclasses.replace(model.images[3], name="v.1_mask.png")
    write_model(scene_folder / "sparse" / "0", model)
    (masks / "v.3.png").rename(masks / "v.1_mask.png")
    for name in ("v.1", "v.2"):
        shutil.copy(masks / "v.2.png", masks / f"{name}.mask.png")
    scene = read_scene(params(scene_folder))
    for view in scene.train_cameras:
        assert view.mask_path == masks / f"{view.image_name}.png"
    (masks / "v.1.png").unlink()
    (masks / "v.1.mask.png").unlink()
    first, *others = read_scene(params(scene_folder)).train_cameras
    assert first.mask_path is None and all(view.mask_path for view in others)


def test_names_in_either_form_of_unicode_are_the_same(scene_folder: Path) -> None:
    short, long = "ä.1.png", "a\u0308.1.png"  # one character, and two
    model = read_model(scene_folder / "sparse" / "0")
    model.images[1] = dataclasses.replace(model.images[1], name=short)
    write_model(scene_folder / "sparse" / "0", model)
    for folder in ("images", "object_mask", "images_train"):
        (scene_folder / folder / "v.1.png").rename(scene_folder / folder / long)
    scene = read_scene(params(scene_folder, train_split=True))
    names = {view.image_name: view.mask_path for view in scene.train_cameras}
    assert names.keys() == {"ä.1", "v.2"} and all(names.values())
    assert not scene.notes
    assert load(scene_folder, train_split=True).class_ids == [0, 2, 5]


def test_masks_in_linked_folders_are_found_and_circles_are_left(scene_folder: Path) -> None:
    masks, elsewhere = scene_folder / "object_mask", scene_folder.parent / "masks"
    masks.rename(elsewhere)
    masks.mkdir()
    for link, target in (("left", "../../masks"), ("left/right", "../scene/object_mask"), ("again", ".")):
        (masks / link).symlink_to(target)
    assert [path.relative_to(masks).as_posix() for path in visible_files(masks)] == [
        f"left/v.{index}.png" for index in (1, 2, 3)
    ]
    assert load(scene_folder).class_ids == [0, 2, 5]


def test_masks_of_other_names_are_named_with_what_is_wanted(scene_folder: Path) -> None:
    for name in NAMES:
        (scene_folder / "object_mask" / name).rename(scene_folder / "object_mask" / f"other_{name}")
    message = refusal(scene_folder)
    assert "other_v.1.png" in message and "Wanted is v.1.png" in message


def test_turned_masks(scene_folder: Path) -> None:
    for name in NAMES:
        path = scene_folder / "object_mask" / name
        Image.fromarray(np.array(Image.open(path)).T).save(path)
    message = refusal(scene_folder)
    assert "v.1.png: 16x24" in message and "is 24x16 (3 such" in message and "EXIF" in message


def test_black_masks(scene_folder: Path) -> None:
    Image.new("L", (24, 16)).save(scene_folder / "object_mask" / "v.2.png")
    assert "1 of 3 masks of training views hold next to no label (v.2)" in notes(scene_folder)
    for name in NAMES:
        Image.new("L", (24, 16)).save(scene_folder / "object_mask" / name)
    assert "nothing to segment" in refusal(scene_folder)


def test_ids_coded_as_colours_have_a_remedy_that_works(scene_folder: Path) -> None:
    for name in NAMES:
        ids = np.array(Image.open(scene_folder / "object_mask" / name))
        Image.fromarray(np.stack([ids, 0 * ids, ids * 40], -1)).save(scene_folder / "object_mask" / name)
    message = refusal(scene_folder)
    assert "num_classes" not in message
    command = message.partition("numbered anew by ")[2].partition(";")[0].replace("SCENE", str(scene_folder))
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, *command.split(), "--quiet"], cwd=root, check=True)
    assert load(scene_folder, object_path="object_mask_ids").class_ids == [0, 1, 2]


# Photographs.


def test_16_bit_greys(scene_folder: Path) -> None:
    values = np.full((16, 24), 163 * 257, np.uint16)
    for name in NAMES:
        Image.fromarray(values).save(scene_folder / "images" / name)
    scene = load(scene_folder)
    assert float(scene.train_cameras[0].original_image.mean()) == pytest.approx(163 / 255)
    assert "3 images have 16 bits" in "\n".join(scene.notes)


def test_a_photograph_of_too_many_pixels(scene_folder: Path) -> None:
    Image.new("1", (18_000, 12_000)).save(scene_folder / "images" / "v.2.png")
    assert "v.2.png: more than 179 megapixels" in refusal(scene_folder)


# Truth and predictions.


def test_true_masks_of_any_two_values(tmp_path: Path) -> None:
    shape = np.arange(12).reshape(3, 4) % 3 == 0
    for name, values in {"255": shape * 255, "1": shape * 1, "38": shape * 38}.items():
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), shape)
    alpha = np.dstack([np.full((3, 4, 3), 200), shape * 255]).astype(np.uint8)
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "alpha.png"), shape)
    Image.fromarray((np.arange(12).reshape(3, 4) * 9).astype(np.uint8)).save(tmp_path / "soft.png")
    with pytest.raises(UserError, match=r"soft\.png: values from 0 to 99"):
        read_mask(tmp_path / "soft.png")


def test_hidden_files_among_true_masks(tmp_path: Path) -> None:
    write_mask(tmp_path / "0" / "lemon.png", np.ones((2, 2), bool))
    (tmp_path / "0" / "._lemon.png").write_bytes(b"\0\5\26\7\0\2")
    (tmp_path / ".cache").mkdir()
    assert [mask.prompt for mask in list_truth(tmp_path)] == ["lemon"]


def test_predictions_that_belong_to_no_true_mask(tmp_path: Path) -> None:
    for folder in ("scene/test_mask/0", "pred/frame_00007"):
        write_mask(tmp_path / folder / "a mug.png", np.ones((2, 2), bool))
    with pytest.raises(UserError, match=r"frame_00007/a mug\.png.*Wanted are 0/a mug\.png"):
        evaluate_folder(tmp_path / "pred", tmp_path / "scene")
    (tmp_path / "pred" / "frame_00007").rename(tmp_path / "pred" / "0")
    (tmp_path / "pred" / "0" / "a mug.png").rename(tmp_path / "pred" / "0" / "a_mug.png")
    assert evaluate_folder(tmp_path / "pred", tmp_path / "scene")["miou"] == 1.0


# Runs.


def test_a_ply_is_no_checkpoint(tmp_path: Path) -> None:
    write_point_cloud(tmp_path / "point_cloud.ply", np.zeros((1, 3)), np.zeros((1, 3)))
    with pytest.raises(UserError, match=r"point_cloud\.ply: a PLY is a model, not a checkpoint.*interval"):
        checkpoint.load(tmp_path / "point_cloud.ply")


@pytest.mark.parametrize("name", ["point_cloud", "train", "train/ours_7/renders"])
def test_links_that_lead_out_of_a_run_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=rf"{name}: a link that leads out"):
        RunFolder(tmp_path / "run").check_links()
    path.unlink()
    (tmp_path / "run" / "notes").symlink_to(tmp_path / "mine")  # not a name of ours
    RunFolder(tmp_path / "run").check_links()


# Faults of the machine.


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.ENOENT, "gone meanwhile"),
    ],
)
def test_faults_of_the_disk_name_the_file(tmp_path: Path, code: int, words: str) -> None:
    with pytest.raises(OSError, match=r"a\.pth") as error, atomic_write(tmp_path / "a.pth"):
        raise OSError(code, os.strerror(code))
    message = str(explain(error.value))
    assert message.startswith(f"{tmp_path / 'a.pth'}: ") and words in message


@pytest.mark.parametrize(
    "error", [OSError("858 requested and 387 written"), RuntimeError("inline_container.cc")]
)
def test_writers_that_do_not_say_that_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(type(error), match=str(error)), atomic_write(tmp_path / "a.ply"):
        raise error
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=r"a\.ply") as full, atomic_write(tmp_path / "a.ply"):
        raise error
    assert "the disk is full" in str(explain(full.value))


def test_memory_is_said_to_be_full() -> None:
    assert "memory is full" in str(explain(MemoryError()))
    assert "-r 2" in str(explain(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")))
    allocator = RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
    assert "memory is full" in str(explain(allocator))
    assert explain(KeyError("a fault of ours")) is None


def test_a_command_shows_a_line_and_with_debug_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        assert "--debug" not in sys.argv
        raise OSError(errno.ENOSPC, "No space left on device", "a.ply")

    for flags, has_traceback in (([], False), (["--debug"], True)):
        monkeypatch.setattr(sys, "argv", ["train.py", *flags])
        with pytest.raises(SystemExit) as status:
            run_command(fail)
        assert status.value.code == 2
        said = capsys.readouterr().err
        assert said.splitlines()[-1].startswith("error: a.ply: the disk is full")
        assert ("Traceback" in said) == has_traceback


def test_a_fault_of_ours_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def fail() -> None:
        raise KeyError("a fault of ours")

    with pytest.raises(KeyError):
        run_command(fail)
