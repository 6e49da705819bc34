"""Pictures of a run: what is written, one colouring for all views, numbers that survive their files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gradiseg.evaluation.views import (
    fit_identity_colors,
    require_video,
    view_pictures,
    write_views,
)
from scene.cameras import Camera
from utils.errors import UserError

HEIGHT, WIDTH = 10, 14


def make_camera(seed: int, objects: Tensor | None = None) -> Camera:
    """A camera with a grey photograph and perhaps a mask; its `uid` is the seed of what is drawn."""
    photograph = torch.full((3, HEIGHT, WIDTH), 64, dtype=torch.uint8)
    intrinsics = (20.0, 20.0, WIDTH / 2, HEIGHT / 2)
    return Camera(seed, "view", WIDTH, HEIGHT, *intrinsics, np.eye(3), np.zeros(3), photograph, objects)


def draw(camera: Camera) -> dict[str, Tensor]:
    """Noise that depends on the camera."""
    generator = torch.Generator().manual_seed(camera.uid)
    features = torch.randn(16, HEIGHT, WIDTH, generator=generator)
    return {"render": torch.rand(3, HEIGHT, WIDTH, generator=generator), "render_object": features}


def classifier() -> nn.Conv2d:
    """Random, eight classes."""
    torch.manual_seed(0)
    return nn.Conv2d(16, 8, 1)


def test_all_folders_are_written_and_masks_only_where_they_exist(tmp_path: Path) -> None:
    cameras = [make_camera(0), make_camera(1, torch.ones(HEIGHT, WIDTH, dtype=torch.int16))]
    colors = fit_identity_colors(cameras, lambda camera: draw(camera)["render_object"])
    stale = tmp_path / "renders" / "00007.png"
    stale.parent.mkdir()
    stale.touch()
    write_views(tmp_path, cameras, draw, classifier(), colors)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    always = ("renders", "gt", "objects_feature16", "objects_pred", "objects_id", "concat")
    expected = {f"{name}/0000{view}.png" for name in always for view in (0, 1)} | {
        "gt_objects_color/00001.png"
    }
    assert found == expected
    sizes = {Image.open(tmp_path / "concat" / f"0000{view}.png").size for view in (0, 1)}
    assert sizes == {(5 * WIDTH, HEIGHT)}
    write_views(tmp_path, cameras[:1], draw, classifier(), colors)
    assert Image.open(tmp_path / "concat" / "00000.png").size == (4 * WIDTH, HEIGHT)  # no view has a mask


def test_equal_features_have_equal_colours_in_every_view() -> None:
    cameras = [make_camera(0), make_camera(1)]
    colors = fit_identity_colors(cameras, lambda camera: draw(camera)["render_object"])
    first, second = draw(make_camera(2)), draw(make_camera(3))
    second["render_object"][:, :5] = first["render_object"][:, :5]
    pictures = [view_pictures(make_camera(0), drawn, classifier(), colors) for drawn in (first, second)]
    for name in ("objects_feature16", "objects_pred"):
        assert torch.equal(pictures[0][name][:, :5], pictures[1][name][:, :5])
        assert not torch.equal(pictures[0][name], pictures[1][name])


def test_a_video_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        require_video()
