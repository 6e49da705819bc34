"""Free views: an entry and its camera are each other's inverse, and every wrong entry is named."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gradiseg.selection import free_view
from gradiseg.selection.expression import Chooser
from tests.labelled_scene import camera, labelled_scene, views
from utils.errors import UserError

CHOOSE = Chooser(labelled_scene(), views())
BOX = [10, 10, 40, 40]


def entry(**changes: object) -> dict[str, object]:
    """View 0 as an entry, through JSON."""
    return {**json.loads(json.dumps(free_view.entry_of(camera()))), **changes}


def test_an_entry_gives_the_camera_back() -> None:
    first, again = camera(), free_view.camera_of(entry(), "x")
    assert (again.image_width, again.image_height) == (first.image_width, first.image_height)
    assert torch.allclose(again.full_proj_transform, first.full_proj_transform, atol=1e-5)
    assert free_view.entry_of(free_view.camera_of(entry(), "x"))["rotation"] == entry()["rotation"]


def test_equal_entries_give_equal_bits() -> None:
    first, second = (free_view.camera_of(entry(), "x") for _ in range(2))
    assert torch.equal(first.full_proj_transform, second.full_proj_transform)


def test_a_region_in_a_free_view_is_that_of_the_view() -> None:
    assert torch.equal(CHOOSE({"box": BOX, "camera": entry()}), CHOOSE({"box": BOX, "view": "view_0"}))


def test_positions_are_in_the_frame_of_files() -> None:
    origin = np.array([4e5, 5e6, 100.0])
    model = replace(labelled_scene(), origin=origin)
    far = {"box": BOX, "camera": free_view.entry_of(camera(), origin)}
    assert torch.equal(Chooser(model, {})(far), CHOOSE({"box": BOX, "view": "view_0"}))


def test_hidden_objects_are_as_if_they_were_not_there() -> None:
    model = labelled_scene()
    others = ~torch.isin(model.ids, torch.tensor([1, 2]))
    region = {"box": BOX, "view": "view_1"}
    alone = Chooser(model.rows(others), views())(region)
    hidden = CHOOSE({**region, "hidden": [1, 2]})
    assert torch.equal(hidden[others], alone) and not bool(hidden[~others].any())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "width must be a whole number from 1"),
        ({"height": 10**6}, "height must be a whole number from 1"),
        ({"fx": -1}, "fx must be above 0"),
        ({"fy": "wide"}, "fy must be a finite number"),
        ({"cx": float("nan")}, "cx must be a finite number"),
        ({"position": [1, 2]}, "position must be [x, y, z]"),
        ({"rotation": np.zeros((3, 3)).tolist()}, "rotation must be a rotation"),
        ({"rotation": (-np.eye(3)).tolist()}, "rotation must be a rotation"),
        ({"rotation": "up"}, "three rows of three numbers"),
        ({"zoom": 1}, "no 'zoom'"),
    ],
)
def test_what_is_no_camera_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match="x: camera") as raised:
        free_view.camera_of(entry(**change), "x")
    assert words in str(raised.value)


def test_a_view_and_a_camera_exclude_each_other() -> None:
    with pytest.raises(UserError, match="exclude"):
        CHOOSE({"box": BOX, "camera": entry(), "view": "view_0"})
    with pytest.raises(UserError, match=r"as in cameras\.json"):
        CHOOSE({"box": BOX, "camera": 3})
    with pytest.raises(UserError, match="list of ids"):
        CHOOSE({"box": BOX, "view": "view_0", "hidden": "duck"})
