"""Identities of Gaussians that come back: by labels, by encodings, by place."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch

from gradiseg.editing.object_files import ids_beside
from gradiseg.editing.operations import Extract, Import, Insert, Remove, Surroundings
from gradiseg.export.exported import export
from gradiseg.labelled import LabelledModel
from scene.formats.files import FORMATS, write_gaussians
from tests.labelled_scene import labelled_scene, views
from utils.errors import UserError

SCENE = Surroundings(views())


def imported(model: LabelledModel, path: Path, **fields: str) -> LabelledModel:
    """The model after its Gaussians were replaced by those of a file."""
    return Import(source=str(path), **fields).apply(model, SCENE)


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_exported_comes_back_with_its_objects(tmp_path: Path, name: str) -> None:
    model = labelled_scene()
    path = tmp_path / f"scene{FORMATS[name].suffix}"
    export(path, model, name, (0.0, 0.0, 1.0))
    back = imported(model, path)
    assert torch.equal(back.ids, model.ids) and back.names == model.names
    assert torch.equal(back.params["obj_dc"], model.params["obj_dc"])


def test_without_labels_the_place_tells_also_after_rows_went_and_moved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = labelled_scene()
    order = torch.randperm(model.count, generator=torch.Generator().manual_seed(0))[:100]
    path = tmp_path / "scene.ply"
    write_gaussians(path, model.rows(order).params, "ply")
    with caplog.at_level(logging.WARNING):
        back = imported(model, path)
    assert "no labels" in caplog.text and "at most 0 away" in caplog.text
    assert torch.equal(back.ids, model.ids[order])
    assert torch.equal(back.params["obj_dc"], model.params["obj_dc"][order])


def test_encodings_of_the_file_tell_without_labels(tmp_path: Path) -> None:
    model = labelled_scene()
    path = tmp_path / "scene.ply"
    moved = {**model.params, "xyz": model.params["xyz"].flip(0)}
    write_gaussians(path, moved, "gradiseg")
    assert torch.equal(imported(model, path).ids, model.ids)


@pytest.mark.parametrize("name", FORMATS)
def test_a_scene_far_away_comes_back_to_the_bit(tmp_path: Path, name: str) -> None:
    model = replace(labelled_scene(), origin=np.array([4_500_000.0, -300_000.0, 120.0]))
    path = tmp_path / f"scene{FORMATS[name].suffix}"
    written = export(path, model, name, (0.0, 0.0, 1.0))
    assert written.losses.centre == 0
    assert torch.equal(imported(model, path).params["xyz"], model.params["xyz"])
    if FORMATS[name].suffix == ".ply":  # in the user's frame
        x = plyfile.PlyData.read(path)["vertex"]["x"]
        np.testing.assert_allclose(x, model.params["xyz"][:, 0].double() + 4_500_000, rtol=0, atol=1e-6)
    Extract(select=3, to=str(tmp_path / "out")).apply(model, SCENE)
    again = Insert(source=str(tmp_path / "out")).apply(Remove(select=3).apply(model, SCENE), SCENE)
    assert torch.equal(again.params["xyz"], model.params["xyz"])


@pytest.mark.parametrize("name", FORMATS)
def test_an_object_from_elsewhere_keeps_its_shape_in_a_scene_far_away(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ball = labelled_scene().rows(torch.arange(60))
    path = tmp_path / f"ball{FORMATS[name].suffix}"
    export(path, ball, name, (0.0, 0.0, 1.0))
    model = replace(labelled_scene(), origin=np.array([4_500_000.0, -300_000.0, 120.0]))
    placed = Insert(source=str(path), translation=[0.0, 0.0, 2.0]).apply(model, SCENE).params["xyz"][-60:]
    torch.testing.assert_close(placed, ball.params["xyz"] + torch.tensor([0.0, 0.0, 2.0]))
    assert ("count from" in caplog.text) == (path.suffix == ".ply")


@pytest.mark.parametrize("name", FORMATS)
def test_labels_that_do_not_fit_are_an_error(tmp_path: Path, name: str) -> None:
    model = labelled_scene()
    path = tmp_path / f"scene{FORMATS[name].suffix}"
    export(path, model, name, (0.0, 0.0, 1.0))
    np.save(tmp_path / "short.npy", np.zeros(3, np.uint16))
    with pytest.raises(UserError, match=r"3 ids, but .*240 Gaussians"):
        imported(model, path, labels=str(tmp_path / "short.npy"))
    np.save(ids_beside(path), np.full(model.count, 77))
    with pytest.raises(UserError, match=r"no Gaussian of the run has the id 77.*1 \(duck\)"):
        imported(model, path)
