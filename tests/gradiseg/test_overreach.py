"""Ends that lie in another object, away from their own, are drawn back; others feel nothing."""

import pytest
import torch

from gradiseg.overreach import WEIGHT, OverreachLoss
from scene.gaussian_model import GaussianModel
from tests.disc_scene import DEPTH, DISCS, VIEWS, disc_model
from tests.gradiseg.test_votes import camera_of

pytestmark = pytest.mark.usefixtures("one_thread")
CAMERAS = [camera_of(view) for view in VIEWS]
RED, BLUE = DISCS["red disc"], DISCS["blue disc"]


def reaching() -> tuple[GaussianModel, torch.Tensor, int]:
    """The discs, the owner of every Gaussian, and one of the red ones that reaches behind the blue disc."""
    model = disc_model()
    ids = model.get_objects[:, 0].argmax(1)
    row = int((ids == RED.identity).nonzero()[0])
    with torch.no_grad():
        model.params["xyz"][row] = torch.tensor([(RED.x + BLUE.x) / 2, (RED.y + BLUE.y) / 2, DEPTH + 0.05])
        length = 0.5 * ((RED.x - BLUE.x) ** 2 + (RED.y - BLUE.y) ** 2) ** 0.5
        model.params["scaling"][row] = torch.tensor([length / 2, 0.01, 0.01]).log()
        model.params["rotation"][row] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        model.params["opacity"][row] = -5.0
    return model, ids, row


def test_only_the_end_in_the_other_object_is_drawn_back() -> None:
    model, ids, row = reaching()
    loss = OverreachLoss()
    loss.renew(model, CAMERAS, ids)
    assert row in loss.rows and len(loss.rows) < 0.05 * model.num_gaussians
    ends = loss.ends[loss.rows == row]
    towards_blue = 0 if BLUE.x > RED.x else 3
    assert ends.tolist() == [towards_blue]
    loss(model).backward()
    scaling, xyz = model.params["scaling"].grad, model.params["xyz"].grad
    assert scaling is not None and xyz is not None
    assert scaling[row, 0] > 0 and xyz[row, 0] * (BLUE.x - RED.x) > 0  # a step against it: shorter, and back
    untouched = torch.ones_like(ids, dtype=torch.bool)
    untouched[loss.rows] = False
    assert not scaling[untouched].any() and not xyz[untouched].any()
    assert all(model.params[name].grad is None for name in ("opacity", "f_dc", "f_rest", "obj_dc"))


def test_the_loss_is_the_way_beyond_the_tolerance_in_deviations() -> None:
    model, ids, row = reaching()
    loss = OverreachLoss()
    loss.renew(model, CAMERAS, ids)
    mine = loss.rows == row
    loss.rows, loss.ends, loss.targets = loss.rows[mine], loss.ends[mine], loss.targets[mine]
    deviation = model.get_scaling[row, 0]
    end = model.get_xyz[row] + 2 * deviation * torch.tensor([1.0 if BLUE.x > RED.x else -1.0, 0.0, 0.0])
    beyond = (end - loss.targets[0]).norm() - loss.tolerance
    expected = WEIGHT * beyond / deviation / model.num_gaussians
    assert loss(model).item() == pytest.approx(expected.item(), rel=1e-5) and expected > 0


def test_nothing_overreaches_where_nothing_is_shown_or_nothing_is_an_object() -> None:
    model, ids, _ = reaching()
    loss = OverreachLoss()
    assert loss(model).item() == 0
    loss.renew(model, CAMERAS, torch.zeros_like(ids))
    assert not len(loss.rows) and loss(model).item() == 0
    with torch.no_grad():
        model.params["xyz"][:, 2] = -5.0
    loss.renew(model, CAMERAS, ids)
    assert not len(loss.rows)


def test_it_survives_saving() -> None:
    model, ids, _ = reaching()
    loss, other = OverreachLoss(), OverreachLoss()
    loss.renew(model, CAMERAS, ids)
    other.load_state_dict(loss.state_dict(), torch.device("cpu"))
    assert torch.equal(other(model), loss(model)) and loss(model) > 0
