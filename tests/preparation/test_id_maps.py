"""The writer of masks: dense ids, the table, and what it refuses."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preparation import id_maps
from preparation.id_maps import find_masks, number_objects, relabel, take_census, write_masks
from scene.masks import read_id_map, write_id_map
from scene.views import CameraInfo
from utils.errors import UserError

NAMES = ("v.1", "v.2", "sub/v.3")
SHAPE = (12, 20)


@pytest.fixture
def views(tmp_path: Path) -> list[CameraInfo]:
    """Three views with photographs."""
    found = []
    for name in NAMES:
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SHAPE[::-1]).save(path)
        found.append(CameraInfo(name, path, None, np.eye(3), np.zeros(3), 20, 12, 10.0, 10.0, 10.0, 6.0))
    return found


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A folder of random id maps with ids 0, 7 and others up to 40,000."""
    generator = np.random.default_rng(0)
    for name in NAMES:
        write_id_map(tmp_path / "masks" / f"{name}.png", generator.choice([0, 7, 300, 40_000], SHAPE))
    return tmp_path / "masks"


def test_external_ids_become_dense_in_their_order_and_nothing_else_changes(
    tmp_path: Path, views: list[CameraInfo], masks: Path
) -> None:
    census = take_census(find_masks(masks, views), views)
    numbers, table = number_objects(census, {name: s.ids for name, s in census.items()}, 1)
    write_masks(tmp_path / "out", census, numbers, table)
    saved = json.loads((tmp_path / "out" / "ids.json").read_text())["ids"]
    assert {int(new): row["source"] for new, row in saved.items()} == {1: 7, 2: 300, 3: 40_000}
    back = np.array([0, 7, 300, 40_000])
    for name in NAMES:
        before, after = read_id_map(masks / f"{name}.png"), read_id_map(tmp_path / "out" / f"{name}.png")
        np.testing.assert_array_equal(back[after], before)
        for new, row in saved.items():
            assert row["views"] == 3 and row["pixels"] >= (after == int(new)).sum()
    with Image.open(tmp_path / "out" / "v.1.png") as file:
        assert file.mode == "L"


def test_rgb_codes_and_deva_s_folder_are_read(tmp_path: Path, views: list[CameraInfo]) -> None:
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    pixels[:, 10:] = (3, 1, 2)
    for name in NAMES:
        path = tmp_path / "deva" / "Annotations" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    census = take_census(find_masks(tmp_path / "deva", views), views)
    assert census["v.1"].ids.tolist() == [3 + 256 + 2 * 65536] and census["v.1"].pixels.tolist() == [120]


def test_many_ids_make_16_bit_masks(tmp_path: Path, views: list[CameraInfo]) -> None:
    ids = np.arange(12 * 20).reshape(SHAPE)
    for k, name in enumerate(NAMES):
        write_id_map(tmp_path / "masks" / f"{name}.png", ids + 240 * k)
    census = take_census(find_masks(tmp_path / "masks", views), views)
    numbers, table = number_objects(census, {name: s.ids for name, s in census.items()}, 1)
    write_masks(tmp_path / "out", census, numbers, table)
    np.testing.assert_array_equal(read_id_map(tmp_path / "out" / "sub/v.3.png"), ids + 480)


def test_ids_of_few_views_are_dropped_and_counted(views: list[CameraInfo], tmp_path: Path) -> None:
    for k, name in enumerate(NAMES):
        ids = np.full(SHAPE, 5)
        ids[:4] = 9 if k < 2 else 0
        ids[4:5] = 100 + k
        write_id_map(tmp_path / "masks" / f"{name}.png", ids)
    census = take_census(find_masks(tmp_path / "masks", views), views)
    numbers, table = number_objects(census, {name: s.ids for name, s in census.items()}, 2)
    assert {row["source"]: row["views"] for row in table["ids"].values()} == {5: 3, 9: 2}
    assert table["dropped"] == {"ids": 3, "pixels": 60}
    ids = relabel(census["v.1"], numbers["v.1"], read_id_map(census["v.1"].path))
    assert np.unique(ids[4]).tolist() == [0] and np.unique(ids[:4]).tolist() == [2]


def test_masks_of_another_scene_are_refused(masks: Path, views: list[CameraInfo]) -> None:
    (masks / "v.1.png").rename(masks / "w.1.png")
    (masks / "v.2.png").rename(masks / "w.2.png")
    with pytest.raises(UserError, match=r"2 of its 3 masks.*another scene"):
        find_masks(masks, views)


def test_a_view_without_a_mask_is_left_out(masks: Path, views: list[CameraInfo]) -> None:
    (masks / "v.2.png").unlink()
    assert list(find_masks(masks, views)) == ["v.1", "sub/v.3"]


@pytest.mark.parametrize("folder", ["absent", "empty"])
def test_no_masks_at_all(tmp_path: Path, views: list[CameraInfo], folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--masks takes a folder of id maps"):
        find_masks(tmp_path / folder, views)


@pytest.mark.parametrize("damage", ["text", "truncated", "cropped", "picture"])
def test_a_bad_mask_is_named(masks: Path, views: list[CameraInfo], damage: str) -> None:
    path = masks / "v.2.png"
    if damage == "text":
        path.write_text("not a picture")
    elif damage == "truncated":
        noise = np.random.default_rng(0).integers(0, 60_000, (120, 200))
        write_id_map(path, noise)
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "cropped":
        write_id_map(path, np.ones((12, 12)))
    else:  # 70,000 colours
        codes = np.arange(70_000).reshape(200, 350)
        Image.fromarray(
            np.stack([codes % 256, codes // 256 % 256, codes // 65536], -1).astype(np.uint8)
        ).save(path)
        Image.new("RGB", (350, 200)).save(views[1].image_path)
    reason = {"cropped": "12x12, but", "picture": "69,999 ids"}.get(damage, "cannot be read as a mask")
    with pytest.raises(UserError, match=rf"v\.2\.png.*{reason}"):
        take_census(find_masks(masks, views), views)


def test_more_ids_than_a_mask_holds(
    monkeypatch: pytest.MonkeyPatch, masks: Path, views: list[CameraInfo]
) -> None:
    census = take_census(find_masks(masks, views), views)
    monkeypatch.setattr(id_maps, "MAX_IDS", 2)
    with pytest.raises(UserError, match="the masks hold 3 ids"):
        number_objects(census, {name: s.ids for name, s in census.items()}, 1)


@pytest.mark.parametrize("when", ["before", "while writing"])
def test_a_full_disk_leaves_the_old_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: Path, views: list[CameraInfo], when: str
) -> None:
    census = take_census(find_masks(masks, views), views)
    numbers, table = number_objects(census, {name: s.ids for name, s in census.items()}, 1)
    write_masks(tmp_path / "out", census, numbers, table)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    if when == "before":
        monkeypatch.setattr(id_maps, "BYTES_PER_PIXEL", 1e18)
        error: type[Exception] = UserError
    else:

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", fail)
        error = OSError
    with pytest.raises(error):
        write_masks(tmp_path / "out", census, numbers, table)
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not list(tmp_path.glob(".*"))
