"""nerfstudio's frame: views and points move into it together, whichever file the poses come from."""

from pathlib import Path

import numpy as np
import pytest

from arguments import ModelParams
from scene.dataset_readers import read_scene
from scene.views import SceneInfo
from tests.given_cameras import SCALE, dataparser_json, in_that_frame, transforms_json, views_of, write_json
from utils.errors import UserError

DEMO = Path(__file__).parents[2] / "data" / "demo"


@pytest.fixture(scope="module")
def demo() -> SceneInfo:
    return read_scene(ModelParams(str(DEMO), train_split=True))


def in_front(info: SceneInfo, points: np.ndarray) -> np.ndarray:
    """Pixels (V, N, 2) of points (N, 3) in all views."""
    pixels = []
    for view in views_of(info):
        x, y, z = (points @ view.R + view.T).T
        pixels.append(np.stack([view.fx * x / z + view.cx, view.fy * y / z + view.cy], 1))
    return np.stack(pixels)


@pytest.mark.parametrize("from_transforms", [False, True])
def test_points_stay_under_their_pixels(demo: SceneInfo, tmp_path: Path, from_transforms: bool) -> None:
    """COLMAP's own poses, or those of transforms.json, which has been turned already."""
    dataparser = write_json(tmp_path / "dataparser_transforms.json", dataparser_json())
    cameras = write_json(tmp_path / "transforms.json", transforms_json(demo)) if from_transforms else ""
    params = ModelParams(str(DEMO), train_split=True, cameras=str(cameras), dataparser=str(dataparser))
    moved, points = read_scene(params), demo.point_cloud.points
    np.testing.assert_allclose(in_front(moved, in_that_frame(points)), in_front(demo, points), rtol=1e-6)
    if not from_transforms:
        np.testing.assert_allclose(moved.point_cloud.points, in_that_frame(points))
        ratio = moved.nerf_normalization["radius"] / demo.nerf_normalization["radius"]
        assert ratio == pytest.approx(SCALE)


def test_applied_scale_is_not_applied_twice(demo: SceneInfo, tmp_path: Path) -> None:
    """Positions of transforms.json are half as large, and nerfstudio's scale says so."""
    content = transforms_json(demo) | {"applied_scale": 0.5}
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= 0.5
    turned = dataparser_json()
    turned["transform"] = [[*row[:3], 0.0] for row in turned["transform"]]
    radii = []
    for transforms, scale in ((content, SCALE), (transforms_json(demo), SCALE)):
        cameras = write_json(tmp_path / "transforms.json", transforms)
        dataparser = write_json(tmp_path / "dataparser.json", turned | {"scale": scale})
        params = ModelParams(str(DEMO), train_split=True, cameras=str(cameras), dataparser=str(dataparser))
        radii.append(read_scene(params).nerf_normalization["radius"])
    assert radii[0] == pytest.approx(radii[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transform": [[1, 0, 0]] * 3}, "transform must be three rows of four numbers"),
        ({"transform": None}, "transform must be"),
        ({"transform": [[2.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]}, "transform must be a rotation"),
        ({"scale": 0}, "scale must be above 0"),
        ({"scale": "1"}, "scale must be"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_json(tmp_path / "frame.json", dataparser_json() | change)
    with pytest.raises(UserError, match=rf"frame\.json: {message}"):
        read_scene(ModelParams(str(DEMO), dataparser=str(path)))


def test_poses_are_no_frame(demo: SceneInfo, tmp_path: Path) -> None:
    path = write_json(tmp_path / "transforms.json", transforms_json(demo))
    with pytest.raises(UserError, match=r"must hold transform and scale.*--cameras"):
        read_scene(ModelParams(str(DEMO), dataparser=str(path)))
    broken = transforms_json(demo) | {"applied_transform": [[1.0]]}
    cameras = write_json(tmp_path / "broken.json", broken)
    frame = write_json(tmp_path / "frame.json", dataparser_json())
    with pytest.raises(UserError, match="applied_transform must be"):
        read_scene(ModelParams(str(DEMO), cameras=str(cameras), dataparser=str(frame)))
