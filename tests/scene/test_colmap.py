"""COLMAP models: binary and text say the same, and broken ones are named."""

import struct
from pathlib import Path

import numpy as np
import pytest

from scene.colmap import (
    MODELS,
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    count_images,
    read_model,
    read_observations,
)
from tests.colmap_files import write_model
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
        opencv = struct.pack("<QiiQQ8d", 1, 3, 4, 64, 48, 50, 50, 32, 24, 0.1, 0, 0, 0)
        (tmp_path / "cameras.bin").write_bytes(opencv)
    with pytest.raises(UserError, match=r"cameras\.(bin|txt).*image_undistorter"):
        read_model(tmp_path)


@pytest.mark.parametrize("number", [number for number, model in MODELS.items() if not model.is_pinhole])
def test_every_model_that_bends_rays_is_refused_with_the_remedy(tmp_path: Path, number: int) -> None:
    write_model(tmp_path, small_model())
    count = MODELS[number].parameters
    record = struct.pack(f"<QiiQQ{count}d", 1, 3, number, 64, 48, *[1.0] * count)
    (tmp_path / "cameras.bin").write_bytes(record)
    with pytest.raises(UserError, match=rf"{MODELS[number].name}.*image_undistorter"):
        read_model(tmp_path)
    (tmp_path / "cameras.bin").unlink()
    (tmp_path / "cameras.txt").write_text(f"3 {MODELS[number].name} 64 48{' 1' * count}\n")
    with pytest.raises(UserError, match=rf"{MODELS[number].name}.*image_undistorter"):
        read_model(tmp_path)


def test_camera_models_are_colmaps() -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="knows COLMAP's models")
    theirs = {int(m.value): name for name, m in pycolmap.CameraModelId.__members__.items() if m.value >= 0}
    assert theirs.items() <= {number: model.name for number, model in MODELS.items()}.items()
    for number, name in theirs.items():
        camera = pycolmap.Camera(model=name, width=64, height=48)
        assert camera.params_info.count(",") + 1 == MODELS[number].parameters


def test_an_image_of_an_unknown_camera_is_named(tmp_path: Path) -> None:
    model = small_model()
    write_model(tmp_path, ColmapModel({9: model.cameras[3]}, model.images, model.points, model.colors))
    with pytest.raises(UserError, match="camera 3"):
        read_model(tmp_path)


def text_model(folder: Path, images: str, points: str = "7 1 2 3 255 128 0 0.5\n") -> ColmapModel:
    (folder / "cameras.txt").write_text("1 PINHOLE 64 48 50 50 32 24\n")
    (folder / "images.txt").write_text(images, newline="")
    (folder / "points3D.txt").write_text(points)
    return read_model(folder)


POSES = [f"{key} 1 0 0 0 0 0 {key} 1 v {key}.jpg" for key in (4, 2, 9)]  # ids in any order, names with spaces
KEYPOINTS = "1.5 2.5 -1 3 4 7"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(POSES),
        "\n\n\n".join(POSES),
        "\r\n\r\n".join(POSES),
        f"# list\n\n{POSES[0]}\n{KEYPOINTS}\n{POSES[1]}\n  # comment\n{POSES[2]}\n{KEYPOINTS}",
        "\ufeff" + "\n\n".join(pose.replace(" ", "\t", 9) for pose in POSES) + "\n\n",
    ],
    ids=["one line each", "two blank lines", "CRLF", "mixed", "byte order mark and tabs"],
)
def test_every_image_of_a_text_model_is_read(tmp_path: Path, text: str) -> None:
    """Written by hand, a file lacks empty second lines or has more of them; none drops an image."""
    model = text_model(tmp_path, text)
    assert [image.name for image in model.images.values()] == ["v 4.jpg", "v 2.jpg", "v 9.jpg"]
    assert [image.tvec[2] for image in model.images.values()] == [4, 2, 9]
    seen = read_observations(tmp_path)
    assert [len(seen[f"v {key}.jpg"]) for key in (4, 9)] == ([1, 1] if KEYPOINTS in text else [0, 0])


@pytest.mark.parametrize(
    ("images", "points", "message"),
    [
        ("1 1 0 0 0 0 0 1 1\n", "", r"images\.txt: line 1: .* NAME"),
        (POSES[0].replace("0", "0,5", 1), "", r"images\.txt: line 1: QX must be a number, not '0,5'"),
        (POSES[0] + "\n\n" + POSES[0], "", r"images\.txt: the id 4 occurs twice"),
        (POSES[0] + "\n\n5" + POSES[0][1:], "", "two images are named v 4.jpg"),
        (POSES[0] + "\n1.5 2.5\n", "", r"images\.txt: line 2"),
        (POSES[0].replace("v 4", "../../v"), "", "leads out of the image folder"),
        (POSES[0].replace("v 4", "/etc/v"), "", "leads out of the image folder"),
        (POSES[0].replace("v 4", "C:\\v"), "", "leads out of the image folder"),
        (POSES[0], "0.5 1 2 255 128 0 0.5 1 0\n", r"points3D\.txt: line 1: POINT3D_ID must be an integer"),
        (POSES[0], "1 0.5 1 2 255 128\n", r"points3D\.txt: line 1: 6 fields"),
        (POSES[0], "1 0.5 1 2 0.1 0.2 0.3 0.5\n", r"points3D\.txt: line 1: R must be an integer, not '0.1'"),
        (POSES[0], "1 0.5 1 2 256 2 3 0.5\n", r"points3D\.txt: line 1: R, G and B must be 0 to 255"),
        (POSES[0], f"{2**70} 0.5 1 2 6 2 3 0.5\n", r"points3D\.txt: line 1: POINT3D_ID"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(tmp_path: Path, images: str, points: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        text_model(tmp_path, images, points)


def test_text_of_another_encoding_is_named(tmp_path: Path) -> None:
    text_model(tmp_path, POSES[0])
    (tmp_path / "images.txt").write_bytes("1 1 0 0 0 0 0 0 1 \xe9.jpg".encode("latin-1"))
    with pytest.raises(UserError, match=r"images\.txt: is no UTF-8 text"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("text", "camera"),
    [
        ("1 SIMPLE_RADIAL 64 48 50 32 24 0", ColmapCamera(64, 48, 50, 50, 32, 24)),
        ("1 OPENCV 64 48 50 51 32 24 0 0 0 0", ColmapCamera(64, 48, 50, 51, 32, 24)),
    ],
)
def test_cameras_without_distortion_are_pinholes(tmp_path: Path, text: str, camera: ColmapCamera) -> None:
    text_model(tmp_path, POSES[0])
    (tmp_path / "cameras.txt").write_text(text)
    assert read_model(tmp_path).cameras[1] == camera


@pytest.mark.parametrize("part", ["cameras", "images", "points3D"])
def test_a_forged_count_is_refused_before_anything_is_allocated(tmp_path: Path, part: str) -> None:
    write_model(tmp_path, small_model())
    path = tmp_path / f"{part}.bin"
    for count in (2**40, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", count) + path.read_bytes()[8:])
        with pytest.raises(UserError, match=rf"{part}\.bin: truncated: its size"):
            read_model(tmp_path)


@pytest.mark.parametrize("part", ["cameras", "images", "points3D"])
def test_bytes_that_no_count_covers_are_named(tmp_path: Path, part: str) -> None:
    write_model(tmp_path, small_model())
    path = tmp_path / f"{part}.bin"
    path.write_bytes(path.read_bytes() + bytes(5))
    with pytest.raises(UserError, match=rf"{part}\.bin: 5 bytes follow"):
        read_model(tmp_path)


def test_images_are_counted_without_reading_the_model(tmp_path: Path) -> None:
    assert count_images(DEMO) == 42 and count_images(tmp_path) == 0
    write_model(tmp_path, small_model(), text=True)
    assert count_images(tmp_path) == 2
