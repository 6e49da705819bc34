"""Photographs become a scene whose poses are right, once; what fails is named and leaves nothing behind."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convert
from arguments import ModelParams
from preparation import sfm
from preparation.sfm import SfmParams, photo_pairs
from scene.colmap import read_model, read_observations
from scene.dataset_readers import read_scene
from tests.preparation.conftest import SIZE, VIEWS, camera
from utils.errors import UserError
from utils.graphics import quaternion_to_matrix

pytest.importorskip("pycolmap", reason="convert.py needs the extra [sfm]")


@pytest.fixture(scope="session")
def converted(corner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "scene"
    convert.main(["-s", str(folder), "--photos", str(corner), "--json", f"{folder}/report.json", "--quiet"])
    return folder


def refusal(*arguments: object) -> str:
    with pytest.raises(UserError) as error:
        convert.main([*map(str, arguments), "--quiet"])
    return str(error.value)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_poses_are_those_of_the_photographer_up_to_a_similarity(converted: Path) -> None:
    images = sorted(read_model(converted / "sparse" / "0").images.values(), key=lambda image: image.name)
    assert [image.name for image in images] == [f"view_{index}.jpg" for index in range(VIEWS)]
    rotations = [quaternion_to_matrix(image.qvec) for image in images]
    found = np.stack([-R.T @ image.tvec for R, image in zip(rotations, images, strict=True)])
    true = np.stack([camera(index)[1] for index in range(VIEWS)])
    a, b = found - found.mean(axis=0), true - true.mean(axis=0)
    u, scale, vt = np.linalg.svd(a.T @ b)
    assert np.linalg.det(u @ vt) > 0
    error = np.linalg.norm(a @ u @ vt * scale.sum() / (a**2).sum() - b, axis=1)
    assert error.max() < 0.01 * np.linalg.norm(b, axis=1).max()


def test_the_scene_is_complete(converted: Path) -> None:
    info = read_scene(ModelParams(source_path=str(converted)))
    assert len(info.train_cameras) == VIEWS and len(info.point_cloud.points) > 100
    for view in info.train_cameras:
        with Image.open(view.image_path) as image:
            assert image.size == (view.width, view.height)
    observations = read_observations(converted / "sparse" / "0")
    assert min(map(len, observations.values())) > 20
    report = json.loads((converted / "report.json").read_text())
    assert report["registered"] == report["photos"] == VIEWS and report["unregistered"] == []
    assert 0 < report["reprojection_error"] < 1


def test_what_is_done_is_not_done_again(
    converted: Path, corner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(converted)
    for step in ("extract_features", "match_features", "build_models", "undistort"):
        monkeypatch.delattr(sfm, step)
    convert.main(["-s", str(converted), "--photos", str(corner), "--quiet", "--resize"])
    after = files(converted)
    assert before.pop("distorted/convert.json") != after["distorted/convert.json"], "now with images_2"
    assert before.items() <= after.items()
    with Image.open(converted / "images" / "view_3.jpg") as image:
        width, height = image.size
    for factor in (2, 4, 8):
        with Image.open(converted / f"images_{factor}" / "view_3.jpg") as image:
            assert image.size == (round(width / factor), round(height / factor))


def test_an_interrupted_matching_goes_on(
    corner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pycolmap = sfm.require_pycolmap()
    match, calls = pycolmap.match_image_pairs, []

    def stop_at_the_third(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        match(*arguments)

    monkeypatch.setattr(sfm, "TILE", 3)
    monkeypatch.setattr(pycolmap, "match_image_pairs", stop_at_the_third)
    command = ["-s", str(tmp_path / "scene"), "--photos", str(corner), "--quiet"]
    with pytest.raises(KeyboardInterrupt):
        convert.main(command)
    names = {path.name for path in (tmp_path / "scene" / "distorted").iterdir()}
    assert "database.db" not in names and "sparse" not in names and "database.part.db" in names
    monkeypatch.setattr(pycolmap, "match_image_pairs", match)
    monkeypatch.delattr(pycolmap, "extract_features")  # they are in the database
    convert.main(command)
    assert len(read_model(tmp_path / "scene" / "sparse" / "0").images) == VIEWS


def test_a_given_model_is_undistorted(converted: Path, tmp_path: Path) -> None:
    for folder in ("photos", "sparse"):
        shutil.copytree(converted / "distorted" / folder, tmp_path / folder)
    command = ["--photos", str(tmp_path / "photos"), "--model", str(tmp_path / "sparse" / "0"), "--quiet"]
    convert.main(["-s", str(tmp_path / "scene"), *command])
    again = files(tmp_path / "scene" / "images")
    assert again == files(converted / "images")
    convert.main(["-s", str(tmp_path / "small"), *command, "--max_size", "100"])
    assert (
        max(SIZE)
        > 100
        >= max(vars(c)["width"] for c in read_model(tmp_path / "small/sparse/0").cameras.values())
    )
    (tmp_path / "photos" / "view_3.jpg").unlink()
    message = refusal("-s", tmp_path / "other", *command)
    assert "view_3.jpg" in message and "--photos" in message


def test_photographs_that_do_not_overlap(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    generator = np.random.default_rng(0)
    for index in range(3):
        pixels = generator.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((160, 120)).save(tmp_path / "input" / f"{index}.png")
    message = refusal("-s", tmp_path)
    assert "3 photographs" in message and "two thirds" in message
    assert {path.name for path in tmp_path.iterdir()} == {"input", "distorted"}
    assert not (tmp_path / "distorted" / "sparse").exists()


def test_what_convert_did_not_make_is_not_touched(corner: Path, tmp_path: Path) -> None:
    (tmp_path / "scene" / "distorted" / "sparse").mkdir(parents=True)
    (tmp_path / "scene" / "distorted" / "photos").mkdir()
    (tmp_path / "scene" / "distorted" / "photos" / "mine.jpg").write_text("precious")
    message = refusal("-s", tmp_path / "scene", "--photos", corner)
    assert "photos" in message and "not made by convert.py" in message
    assert (tmp_path / "scene" / "distorted" / "photos" / "mine.jpg").read_text() == "precious"


def test_nothing_is_made_where_the_results_cannot_go(corner: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(corner, scene / "images")
    message = refusal("-s", scene, "--photos", scene / "images")
    assert "not made by convert.py" in message and "input/" in message
    for folder in (scene / "images", scene / "images" / "scene"):
        message = refusal("-s", folder, "--photos", scene / "images")
        assert "input/" in message and "another -s" in message
    assert files(tmp_path).keys() == {f"scene/images/{name}" for name in files(corner)}


def test_photographs_that_got_lost_on_the_way(corner: Path, tmp_path: Path) -> None:
    command = ("-s", tmp_path / "scene", "--photos", corner)
    photos = tmp_path / "scene" / "distorted" / "photos"

    def lose(*arguments: object) -> None:
        shutil.copytree(corner, photos)
        (photos / "view 0.jpg").unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preparation.photos.copy_photos", lose)
        message = refusal(*command)
    assert f"{VIEWS - 1} photographs" in message and "Delete" in message


def test_no_photographs_no_folder_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "-s" in refusal()
    assert "input" in refusal("-s", tmp_path)
    assert "absent" in refusal("-s", tmp_path, "--photos", tmp_path / "absent")
    (tmp_path / "input").mkdir()
    assert "0 photographs" in refusal("-s", tmp_path)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert "[sfm]" in refusal("-s", tmp_path)


def test_a_disk_without_space(corner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    assert "0 MB free" in refusal("-s", tmp_path / "scene", "--photos", corner)
    monkeypatch.undo()

    def no_space(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preparation.photos.copy_photos", no_space)
    message = refusal("-s", tmp_path / "scene", "--photos", corner)
    assert "disk is full" in message and "same command" in message
    assert not (tmp_path / "scene" / "distorted" / "photos").exists()


def test_a_disk_that_fills_while_the_database_grows(
    corner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    free = iter([usage.free, usage.free, 1000])
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=next(free)))
    assert "0 MB free" in refusal("-s", tmp_path / "scene", "--photos", corner, "--threads", 1)
    names = {path.name for path in (tmp_path / "scene" / "distorted").iterdir()}
    assert "database.part.db" in names and "database.db" not in names
    (tmp_path / "scene" / "distorted" / "database.part.db").write_text("cut off")
    for path in (tmp_path / "scene" / "distorted").glob("*.db-*"):
        path.unlink()
    monkeypatch.undo()
    assert "delete the file" in refusal("-s", tmp_path / "scene", "--photos", corner)


def test_pairs() -> None:
    every = photo_pairs(9, SfmParams(), is_video=False)
    assert sorted(every) == [(i, j) for i in range(9) for j in range(i + 1, 9)]
    chosen = photo_pairs(200, SfmParams(overlap=3), is_video=False)
    assert len(set(chosen)) == len(chosen) < 200 * 199 / 8
    assert {(i, i + 1) for i in range(199)} <= set(chosen), "neighbours"
    assert (0, 128) in chosen and (0, 195) in chosen and (1, 196) not in chosen
    assert len(photo_pairs(100, SfmParams(), is_video=True)) < len(
        photo_pairs(100, SfmParams(), is_video=False)
    )
