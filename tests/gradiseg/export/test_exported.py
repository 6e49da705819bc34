"""Exported files: labels beside them, losses measured, objects alone."""

from pathlib import Path

import pytest
import torch

from gradiseg.editing.object_files import ids_beside, names_beside, read_ids, read_names
from gradiseg.export.exported import export, file_name, objects_of, upwards
from scene.formats.files import FORMATS, read_gaussians
from tests.labelled_scene import PER_OBJECT, labelled_scene
from utils.errors import UserError


@pytest.mark.parametrize("name", FORMATS)
def test_labels_lie_beside_in_the_order_of_the_rows(tmp_path: Path, name: str) -> None:
    model = labelled_scene()
    path = tmp_path / f"scene{FORMATS[name].suffix}"
    written = export(path, model, name, (0.0, 0.0, 1.0))
    back = read_gaussians(path)
    assert torch.equal(back["xyz"], model.params["xyz"])
    assert torch.equal(read_ids(ids_beside(path)), model.ids)
    assert read_names(names_beside(path)) == {1: "duck", 2: "mug"}
    assert written.gaussians == model.count and written.losses.centre == 0
    assert written.losses.identities == (name != "gradiseg")


def test_every_object_alone(tmp_path: Path) -> None:
    parts = dict(objects_of(labelled_scene()))
    assert list(parts) == ["1_duck", "2_mug", "3", "4"]
    assert all(part.count == PER_OBJECT and len(part.counts()) == 1 for part in parts.values())
    assert file_name(4, "../a b.c") == "4_a_b_c"


def test_what_a_format_cannot_hold_is_an_error(tmp_path: Path) -> None:
    model = labelled_scene()
    huge = model.params["scaling"].clone()
    huge[3] = 100.0
    model = model.with_rows_changed(torch.ones_like(model.ids, dtype=torch.bool), scaling=huge)
    with pytest.raises(UserError, match="1 Gaussians are too large for splat"):
        export(tmp_path / "a.splat", model, "splat", (0.0, 0.0, 1.0))
    assert not list(tmp_path.iterdir())
    assert export(tmp_path / "a.ply", model, "ply", (0.0, 0.0, 1.0)).losses.scale == 0


def test_upwards_is_the_mean_of_views_or_y() -> None:
    assert upwards(torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])) == [0.0, 0.5, 1.0]
    assert upwards(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])) == [0.0, 1.0, 0.0]
