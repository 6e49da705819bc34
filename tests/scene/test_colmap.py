"""COLMAP models: binary and text say the same, and broken ones are named."""

from pathlib import Path

import numpy as np
import pytest

from scene.colmap import ColmapCamera, ColmapImage, ColmapModel, read_model, write_model
from utils.errors import UserError

DEMO = Path(__file__).parents[2] / "data" / "demo" / "sparse" / "0"


def small_model() -> ColmapModel:
    generator = np.random.default_rng(0)
    images = {
        key: ColmapImage(generator.normal(size=4), generator.normal(size=3), 3, name)
        for key, name in ((1, "a b.01.jpg"), (7, "folder/c.png"))
    }
    colors = generator.integers(0, 256, (5, 3)).astype(np.uint8)
    return ColmapModel(
        {3: ColmapCamera(64, 48, 50.0, 51.5, 31.25, 24.5)}, images, generator.normal(size=(5, 3)), colors
    )


def assert_same(first: ColmapModel, second: ColmapModel) -> None:
    assert first.cameras == second.cameras
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.colors, second.colors)
    assert first.images.keys() == second.images.keys()
    for key, image in first.images.items():
        other = second.images[key]
        assert (image.name, image.camera_id) == (other.name, other.camera_id)
        np.testing.assert_array_equal(np.r_[image.qvec, image.tvec], np.r_[other.qvec, other.tvec])


@pytest.mark.parametrize("text", [False, True])
def test_what_is_written_is_read(tmp_path: Path, text: bool) -> None:
    write_model(tmp_path, small_model(), text=text)
    assert_same(read_model(tmp_path), small_model())


def test_a_model_of_colmap_itself_is_read() -> None:
    model = read_model(DEMO)
    assert (len(model.cameras), len(model.images), len(model.points)) == (1, 42, 858)
    assert next(iter(model.cameras.values())).width == 160
    norms = [np.linalg.norm(image.qvec) for image in model.images.values()]
    np.testing.assert_allclose(norms, 1.0, atol=1e-9)


def test_comments_empty_keypoint_lines_and_simple_pinhole(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text("# Camera list\n1 SIMPLE_PINHOLE 64 48 50 32 24\n")
    (tmp_path / "images.txt").write_text(
        "# Image list\n1 1 0 0 0 0 0 0 1 a.jpg\n\n2 1 0 0 0 0 0 1 1 b.jpg\n1.5 2.5 -1 3 4 7\n"
    )
    (tmp_path / "points3D.txt").write_text("# points\n7 1 2 3 255 128 0 0.5 1 0 2 0\n")
    model = read_model(tmp_path)
    assert model.cameras[1] == ColmapCamera(64, 48, 50.0, 50.0, 32.0, 24.0)
    assert [image.name for image in model.images.values()] == ["a.jpg", "b.jpg"]
    assert model.points.tolist() == [[1, 2, 3]] and model.colors.tolist() == [[255, 128, 0]]


@pytest.mark.parametrize("part", ["cameras", "images", "points3D"])
def test_truncated_files_are_named(tmp_path: Path, part: str) -> None:
    write_model(tmp_path, small_model())
    path = tmp_path / f"{part}.bin"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{part}.bin"):
        read_model(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=part):
        read_model(tmp_path)


@pytest.mark.parametrize("text", [False, True])
def test_distorted_cameras_are_refused_with_the_remedy(tmp_path: Path, text: bool) -> None:
    write_model(tmp_path, small_model(), text=text)
    if text:
        (tmp_path / "cameras.txt").write_text("3 OPENCV 64 48 50 50 32 24 0.1 0 0 0\n")
    else:
        content = bytearray((tmp_path / "cameras.bin").read_bytes())
        content[12] = 4  # OPENCV
        (tmp_path / "cameras.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"cameras\.(bin|txt).*image_undistorter"):
        read_model(tmp_path)


def test_an_image_of_an_unknown_camera_is_named(tmp_path: Path) -> None:
    model = small_model()
    write_model(tmp_path, ColmapModel({9: model.cameras[3]}, model.images, model.points, model.colors))
    with pytest.raises(UserError, match="camera 3"):
        read_model(tmp_path)
