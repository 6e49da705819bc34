"""Cameras: pixels, matrices and intrinsics stay together at every resolution."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from arguments import ModelParams
from scene.cameras import Camera, load_camera, resize_image, target_size
from scene.views import CameraInfo
from utils.graphics import quaternion_to_matrix


def info(folder: Path, width: int = 637, height: int = 358, mask: bool = True) -> CameraInfo:
    """A view of 637x358 whose photograph and mask show the same disk."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    disk = (columns - width * 0.45) ** 2 + (rows - height * 0.55) ** 2 < (height * 0.3) ** 2
    Image.fromarray(np.repeat(disk[..., None] * np.uint8(255), 3, axis=2)).save(folder / "v.png")
    Image.fromarray(disk.astype(np.uint8) * 9).save(folder / "m.png")
    R = quaternion_to_matrix(np.array([0.9, 0.1, -0.3, 0.2]))
    T = np.array([0.1, -0.2, 0.5])
    intrinsics = (320.3, 320.2, 330.1, 172.9)
    mask_path = folder / "m.png" if mask else None
    return CameraInfo("v", folder / "v.png", mask_path, R, T, 637, 358, *intrinsics)


def project(camera: Camera, points: torch.Tensor) -> torch.Tensor:
    """Image coordinates (N,2), fractions of the image, as the rasterizer would place world points (N,3)."""
    clip = torch.cat([points, torch.ones(len(points), 1)], dim=1) @ camera.full_proj_transform
    return (clip[:, :2] / clip[:, 3:] + 1.0) / 2.0


@pytest.mark.parametrize(
    ("resolution", "size"),
    [(1, (637, 358)), (2, (318, 179)), (4, (159, 90)), (8, (80, 45)), (-1, (637, 358)), (320, (320, 180))],
)
def test_sizes_under_r(resolution: int, size: tuple[int, int]) -> None:
    assert target_size(637, 358, resolution) == size


def test_wide_photographs_are_capped_only_by_default() -> None:
    assert target_size(4000, 3000, -1) == (1600, 1200)
    assert target_size(4000, 3000, 1) == (4000, 3000)


@pytest.mark.parametrize("resolution", [1, 2, 4, 320])
def test_a_point_stays_at_its_place_in_the_image(tmp_path: Path, resolution: int) -> None:
    view = info(tmp_path)
    full = load_camera(view, 0, ModelParams(resolution=1))
    small = load_camera(view, 0, ModelParams(resolution=resolution))
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor(view.R[:, 2]) * 6
    points = points.float()
    torch.testing.assert_close(project(small, points), project(full, points), atol=1e-5, rtol=1e-5)
    rendered = full.at_resolution(small.image_width, small.image_height)
    torch.testing.assert_close(rendered.full_proj_transform, small.full_proj_transform)
    assert rendered.image_uint8 is None and not rendered.is_masked


def test_points_land_where_the_rasterizer_puts_them(tmp_path: Path) -> None:
    camera = load_camera(info(tmp_path), 0, ModelParams(resolution=1))
    points = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) * 3
    x, y, depth, inside = camera.project(points)
    torch.testing.assert_close(depth, (points @ torch.tensor(camera.R).float())[:, 2] + camera.T[2])
    before = depth > 0.1
    expected = project(camera, points) * torch.tensor([637.0, 358.0])
    torch.testing.assert_close(torch.stack([x, y], 1)[before], expected[before], atol=1e-2, rtol=1e-4)
    in_image = ((expected >= 0) & (expected < torch.tensor([637.0, 358.0]))).all(1)
    assert torch.equal(inside[before], in_image[before]) and not inside[depth <= 0].any()
    assert 0 < inside.sum() < before.sum() < 300
    assert camera.project(points.double()).x.dtype == torch.float64


def test_pixels_go_back_to_the_points_that_they_show(tmp_path: Path) -> None:
    view = info(tmp_path)
    camera = load_camera(view, 0, ModelParams(resolution=2))
    noise = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = noise + torch.tensor(view.R[:, 2]) * 6 - torch.tensor(view.R @ view.T)
    x, y, depth, _ = camera.project(points)
    torch.testing.assert_close(camera.unproject(x, y, depth), points, atol=1e-6, rtol=1e-6)
    columns, rows = torch.tensor([3, 200]), torch.tensor([0, 100])
    depth = torch.tensor([2.0, 7.0], dtype=torch.float64)
    back = camera.project(camera.unproject(columns + 0.5, rows + 0.5, depth))
    torch.testing.assert_close(torch.stack(back[:2]).floor().long(), torch.stack([columns, rows]))
    torch.testing.assert_close(back.depth, depth)


def test_image_and_mask_show_one_silhouette_at_half_size(tmp_path: Path) -> None:
    camera = load_camera(info(tmp_path), 0, ModelParams(resolution=2))
    assert camera.objects is not None
    coverage, inside = camera.original_image[0], camera.objects == 9
    undecided = (coverage > 0.15) & (coverage < 0.85)
    assert torch.equal((coverage > 0.5)[~undecided], inside[~undecided])
    ramp = torch.arange(318) + 0.5
    shift = (ramp * inside).sum() / inside.sum() - (ramp * coverage).sum() / coverage.sum()
    assert abs(shift) < 0.1


def test_images_of_a_reduced_folder_have_scaled_intrinsics(tmp_path: Path) -> None:
    """The file is a quarter of what COLMAP saw (images_4): the field of view is the camera's."""
    camera = load_camera(info(tmp_path, width=159, height=90), 0, ModelParams(resolution=1))
    assert (camera.image_width, camera.image_height) == (159, 90)
    assert camera.FoVx == pytest.approx(2 * np.arctan(637 / (2 * 320.3)))
    assert camera.cx / 159 == pytest.approx(330.1 / 637) and camera.cy / 90 == pytest.approx(172.9 / 358)


def test_block_means_are_exact_for_integer_factors() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 3)).astype(np.uint8)
    resized = np.array(resize_image(Image.fromarray(pixels), 4, 4)).astype(float)
    expected = pixels.reshape(4, 3, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(resized - expected).max() <= 0.5 + 1e-9


def test_the_camera_center_maps_to_the_origin(tmp_path: Path) -> None:
    camera = load_camera(info(tmp_path, mask=False), 3, ModelParams())
    origin = torch.cat([camera.camera_center, torch.ones(1)]) @ camera.world_view_transform
    torch.testing.assert_close(origin, torch.tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-6, rtol=0)
    assert (camera.uid, camera.image_name, camera.objects) == (3, "v", None)


def test_transparency_shows_the_background(tmp_path: Path) -> None:
    view = info(tmp_path)
    Image.new("RGBA", (637, 358), (200, 100, 0, 51)).save(view.image_path)  # a fifth opaque
    for white, expected in ((False, (40, 20, 0)), (True, (244, 224, 204))):
        image = load_camera(view, 0, ModelParams(white_background=white)).image_uint8
        assert image is not None and torch.allclose(
            image[:, 0, 0].int(), torch.tensor(expected).int(), atol=1
        )


def test_masks_keep_the_smallest_type_that_holds_their_ids(tmp_path: Path) -> None:
    view = info(tmp_path)
    for largest, dtype in ((255, torch.uint8), (256, torch.int16), (40000, torch.int32)):
        Image.fromarray(np.full((358, 637), largest, dtype=np.uint16)).save(tmp_path / "m.png")
        objects = load_camera(view, 0, ModelParams(num_classes=65536)).objects
        assert objects is not None and objects.dtype == dtype and objects.max() == largest


def test_moving_a_camera_leaves_the_original_alone(tmp_path: Path) -> None:
    camera = load_camera(info(tmp_path), 0, ModelParams())
    moved = camera.to("meta")
    assert moved.world_view_transform.device.type == moved.original_image.device.type == "meta"
    assert camera.world_view_transform.device.type == camera.original_image.device.type == "cpu"


def test_pixels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="8x8"):
        Camera(0, "v", 8, 8, 5, 5, 4, 4, np.eye(3), np.zeros(3), torch.zeros(3, 8, 9, dtype=torch.uint8))
