"""Id maps: every file format, and resizing that keeps maps aligned with images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene.cameras import resize_image
from scene.masks import read_id_map, resize_id_map, write_id_map
from utils.errors import UserError


def random_ids(height: int, width: int, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, (height, width)).astype(np.int32)


def disk(width: int, height: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def centroid(weights: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


@pytest.mark.parametrize(("largest", "mode"), [(0, "L"), (255, "L"), (256, "I"), (60_000, "I")])
def test_ids_survive_their_file_in_as_few_bits_as_they_need(tmp_path: Path, largest: int, mode: str) -> None:
    ids = np.arange(12).reshape(3, 4) * largest // 11
    write_id_map(tmp_path / "ids.png", ids)
    assert np.array_equal(read_id_map(tmp_path / "ids.png"), ids)
    with Image.open(tmp_path / "ids.png") as file:
        assert file.mode.partition(";")[0] == mode
    write_id_map(tmp_path / "ids.png", ids, np.uint16)
    with Image.open(tmp_path / "ids.png") as file:
        assert file.mode.startswith("I")


def test_8_and_16_bit_greys_are_read_as_they_are(tmp_path: Path) -> None:
    small, large = random_ids(6, 5, 256), random_ids(6, 5, 65536)
    Image.fromarray(small.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(large.astype(np.uint16)).save(tmp_path / "16.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "8.png"), small)
    np.testing.assert_array_equal(read_id_map(tmp_path / "16.png"), large)
    assert read_id_map(tmp_path / "16.png").dtype == np.int32


def test_a_palette_gives_indices_not_colours(tmp_path: Path) -> None:
    ids = random_ids(6, 5, 4)
    image = Image.new("P", (5, 6))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    image.putdata(ids.ravel().tolist())
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "p.png"), ids)


@pytest.mark.parametrize("alpha", [False, True])
def test_rgb_codes_ids_by_bytes(tmp_path: Path, alpha: bool) -> None:
    ids = random_ids(6, 5, 2**24)
    channels = [ids & 255, ids >> 8 & 255, ids >> 16] + [np.full_like(ids, 128)] * alpha
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "rgb.png"), ids)


def test_grey_saved_in_colour_and_one_bit_masks(tmp_path: Path) -> None:
    ids = random_ids(6, 5, 2)
    Image.fromarray((ids * 5).astype(np.uint8)).convert("RGB").save(tmp_path / "grey.png")
    Image.fromarray(ids.astype(bool)).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "grey.png"), ids * 5)
    np.testing.assert_array_equal(read_id_map(tmp_path / "bit.png"), ids)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    Image.fromarray(random_ids(60, 50, 256).astype(np.uint8)).save(path)
    for content in (path.read_bytes()[:900], b"no image", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.png"):
            read_id_map(path)
    with pytest.raises(UserError, match=r"absent\.png"):
        read_id_map(tmp_path / "absent.png")


def test_the_same_size_changes_nothing() -> None:
    ids = random_ids(9, 7, 50)
    np.testing.assert_array_equal(resize_id_map(ids, 7, 9), ids)


@pytest.mark.parametrize(("factor_x", "factor_y"), [(2, 2), (3, 3), (4, 2), (1, 5)])
def test_integer_factors_take_the_majority_of_the_block(factor_x: int, factor_y: int) -> None:
    ids = random_ids(8 * factor_y, 6 * factor_x, 3)
    resized = resize_id_map(ids, 6, 8)
    for y, x in np.ndindex(8, 6):
        block = ids[y * factor_y : (y + 1) * factor_y, x * factor_x : (x + 1) * factor_x]
        counts = np.bincount(block.ravel(), minlength=3)
        assert counts[resized[y, x]] == counts.max()


def test_ties_favour_no_id() -> None:
    """A vertical edge through the middle of every block leaves half of the blocks to either side."""
    ids = np.tile(np.array([4, 9], dtype=np.int32), (64, 32))
    share = (resize_id_map(ids, 32, 32) == 9).mean()
    assert share == 0.5


@pytest.mark.parametrize("size", [(20, 30), (7, 3), (13, 30), (20, 11), (41, 60), (25, 8)])
def test_no_id_is_invented_and_one_id_stays_itself(size: tuple[int, int]) -> None:
    ids = random_ids(30, 20, 5) * 1000
    resized = resize_id_map(ids, *size)
    assert resized.shape == size[::-1] and resized.dtype == ids.dtype
    assert set(np.unique(resized)) <= set(np.unique(ids))
    assert (resize_id_map(np.full((30, 20), 77), *size) == 77).all()


def test_enlarging_repeats_pixels() -> None:
    ids = random_ids(4, 5, 9)
    np.testing.assert_array_equal(resize_id_map(ids, 15, 8), ids.repeat(2, axis=0).repeat(3, axis=1))


def test_flipping_and_resizing_commute_up_to_ties() -> None:
    ids = disk(637, 358, 300.3, 170.7, 120).astype(np.int32)
    difference = resize_id_map(ids, 318, 179) != resize_id_map(ids[:, ::-1], 318, 179)[:, ::-1]
    assert difference.sum() < 120  # of some 750 boundary pixels, only undecided ones


@pytest.mark.parametrize("size", [(320, 179), (318, 179), (213, 119), (160, 90)])
def test_masks_stay_aligned_with_images_resized_alike(size: tuple[int, int]) -> None:
    """Disks drawn into an image and into a mask keep one centre and one silhouette."""
    source = (640, 358) if size[0] == 320 else (637, 358)
    generator = np.random.default_rng(2)
    shifts, areas = [], []
    for _ in range(24):
        mask = disk(
            *source, generator.uniform(230, 330), generator.uniform(130, 230), generator.uniform(90, 125)
        )
        image = Image.fromarray(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))
        coverage = np.array(resize_image(image, *size))[..., 0] / 255.0
        resized = resize_id_map(mask.astype(np.int32), *size)
        shifts.append(centroid(resized) - centroid(coverage))
        areas.append(resized.sum() / coverage.sum() - 1.0)
        assert (
            not ((coverage > 0.85) & (resized == 0)).any() and not ((coverage < 0.15) & (resized == 1)).any()
        )
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.02
    assert np.abs(shifts).max() < 0.15  # a shift of half a source pixel would be 0.25 and more
    assert abs(np.mean(areas)) < 2e-3


def test_what_would_change_ids_is_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 7).save(tmp_path / "lossy.png", format="JPEG")
    with pytest.raises(UserError, match=r"lossy\.png.*JPEG changes ids"):
        read_id_map(tmp_path / "lossy.png")
    Image.fromarray(np.array([[-1, 3]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif.*negative ids"):
        read_id_map(tmp_path / "a.tif")
