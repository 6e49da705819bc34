"""Poses of `cameras.json`: the scene's own come back, and every wrong entry is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arguments import ModelParams
from scene.dataset_readers import read_scene
from scene.ply import write_point_cloud
from scene.views import SceneInfo
from tests.given_cameras import cameras_json, transforms_json, views_of, write_json
from utils.errors import UserError

DEMO = Path(__file__).parents[2] / "data" / "demo"
Entries = list[dict[str, Any]]


@pytest.fixture(scope="module")
def demo() -> SceneInfo:
    return read_scene(ModelParams(str(DEMO), train_split=True))


def assert_equal_views(one: SceneInfo, two: SceneInfo, axes: np.ndarray | None = None) -> None:
    """The same views with the same files; `axes` (3, 3) turns the second's world into the first's."""
    axes = np.eye(3) if axes is None else axes
    assert [v.image_name for v in one.test_cameras] == [v.image_name for v in two.test_cameras]
    for a, b in zip(views_of(one), views_of(two), strict=True):
        assert (a.image_name, a.image_path, a.mask_path) == (b.image_name, b.image_path, b.mask_path)
        np.testing.assert_allclose(np.c_[a.R, a.T], np.c_[axes @ b.R, b.T], atol=1e-12)
        lens = [[getattr(v, name) for name in ("width", "height", "fx", "fy", "cx", "cy")] for v in (a, b)]
        assert lens[0] == lens[1]


def test_the_demos_cameras_come_back(demo: SceneInfo, tmp_path: Path) -> None:
    path = write_json(tmp_path / "cameras.json", cameras_json(demo)[::-1])
    write_point_cloud(tmp_path / "input.ply", demo.point_cloud.points, demo.point_cloud.colors)
    info = read_scene(ModelParams(str(DEMO), train_split=True, cameras=str(path)))
    assert_equal_views(demo, info)
    assert len(info.point_cloud.points) == len(demo.point_cloud.points)


def test_transforms_json_of_elsewhere_finds_the_scenes_pictures(demo: SceneInfo, tmp_path: Path) -> None:
    path = write_json(tmp_path / "transforms.json", transforms_json(demo))
    info = read_scene(ModelParams(str(DEMO), train_split=True, cameras=str(path)))
    assert_equal_views(demo, info, np.array(transforms_json(demo)["applied_transform"])[:, :3].T)


def test_without_a_principal_point_it_is_the_middle(demo: SceneInfo, tmp_path: Path) -> None:
    entries = [
        {key: value for key, value in entry.items() if key not in ("cx", "cy")}
        | {"img_name": f"{entry['img_name']}.png"}  # newer ones write a suffix
        for entry in cameras_json(demo)
    ]
    path = write_json(tmp_path / "cameras.json", entries)
    view = read_scene(ModelParams(str(DEMO), cameras=str(path))).train_cameras[0]
    assert (view.cx, view.cy) == (view.width / 2, view.height / 2)
    assert view.image_name == "frame_00001"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.append(3), "entry 42 must be an object"),
        (lambda c: c[1].pop("img_name"), "entry 1: img_name must be"),
        (lambda c: c[1].update(img_name="../../etc/passwd"), "entry 1: img_name must be"),
        (lambda c: c[1].update(img_name="frame_99999"), r"entry 1: frame_99999 is not in .*images"),
        (lambda c: c[1].update(img_name=c[0]["img_name"]), "entry 1: img_name 'frame_00001' is there twice"),
        (lambda c: c[2].update(position=[0, 0]), r"entry 2 \(frame_00003\): position must be \[x, y, z\]"),
        (lambda c: c[2].update(rotation=[[2, 0, 0], [0, 1, 0], [0, 0, 1]]), "rotation must be a rotation"),
        (lambda c: c[2].update(rotation=[[1, 0, 0], [0, 1, 0], [0, 0, -1]]), "rotation must be a rotation"),
        (lambda c: c[2].update(fx=0), "fx must be above 0"),
        (lambda c: c[2].pop("fy"), "fy must be a finite number, not None"),
        (lambda c: c[2].update(width=160.5), "width must be a whole number"),
        (lambda c: c[2].update(cx="80"), "cx"),
        (lambda c: c.clear(), "no training views"),
    ],
)
def test_wrong_entries_are_named(
    demo: SceneInfo, tmp_path: Path, change: Callable[[Entries], object], message: str
) -> None:
    entries = cameras_json(demo)
    change(entries)
    path = write_json(tmp_path / "cameras.json", entries)
    with pytest.raises(UserError, match=message):
        read_scene(ModelParams(str(DEMO), cameras=str(path)))


def test_what_is_no_file_of_cameras_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read as JSON.*--cameras takes"):
        read_scene(ModelParams(str(DEMO), cameras=str(tmp_path / "none.json")))
    path = write_json(tmp_path / "cameras.json", {"transform": [], "scale": 1})
    with pytest.raises(UserError, match="list of frames"):
        read_scene(ModelParams(str(DEMO), cameras=str(path)))
