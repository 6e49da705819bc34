"""The contact sheet shows every id, and numbers lie on what they name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arguments import ModelParams
from preparation.contact_sheet import TILE, draw_ids, label_places, object_tiles, view_tiles, write_sheet
from preparation.doctor import Patient, examine
from utils.errors import UserError

DEMO = Path(__file__).parents[2] / "data" / "demo"


@pytest.fixture(scope="module")
def patient() -> Patient:
    found, _ = examine(ModelParams(source_path=str(DEMO), train_split=True), 3)
    assert found is not None
    return found


def test_a_number_lies_inside_its_object() -> None:
    """Also inside a ring, whose centre is not part of it."""
    y, x = np.mgrid[:60, :80]
    radius = np.hypot(y - 30, x - 40)
    ids = np.where((radius > 12) & (radius < 25), 4, 0)
    ids[:3, :5] = 9  # too small for a number
    places = label_places(ids)
    assert list(places) == [4]
    x_label, y_label = places[4]
    assert ids[y_label, x_label] == 4


def test_unlabelled_pixels_stay_as_they_are() -> None:
    width, height = TILE
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))
    ids = np.zeros((height, width), dtype=np.int32)
    np.testing.assert_array_equal(np.asarray(draw_ids(photo, ids)), np.asarray(photo))
    ids[:, width // 2 :] = 3
    changed = (np.asarray(draw_ids(photo, ids)) != np.asarray(photo)).any(axis=-1)
    assert changed[:, width // 2 + 1 :].mean() > 0.9 and not changed[:, : width // 4].any()


def test_every_id_and_the_views_asked_for(patient: Patient) -> None:
    assert [tile.caption.split(":")[0] for tile in object_tiles(patient)] == [
        f"id {label}" for label in sorted(patient.views_of_id)
    ]
    tiles = view_tiles(patient, 3)
    assert [tile.caption for tile in tiles] == ["frame_00001", "frame_00022", "frame_00042"]
    assert all(tile.picture.width <= TILE[0] and tile.picture.height <= TILE[1] for tile in tiles)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".html"])
def test_files(patient: Patient, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sheet{suffix}"
    write_sheet(path, patient, 2)
    if suffix == ".html":
        page = path.read_text()
        assert page.count("<figure>") == len(patient.views_of_id) + 2 and "http" not in page
    else:
        with Image.open(path) as sheet:
            assert sheet.width > 2 * TILE[0] and sheet.height > TILE[1] and np.asarray(sheet).std() > 10


def test_another_suffix_is_refused(patient: Patient, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.html"):
        write_sheet(tmp_path / "sheet.pdf", patient, 2)
