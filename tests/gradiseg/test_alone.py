"""What only an object alone would show is drawn back; what other views show of it is left."""

import pytest
import torch

from gradiseg import alone
from gradiseg.alone import WEIGHT, AloneLoss, Object, shown_whole
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from tests.disc_scene import CX, CY, DEPTH, DISCS, FOCAL, HEIGHT, VIEWS, WIDTH, disc_model, silhouette
from tests.gradiseg.test_votes import camera_of

pytestmark = pytest.mark.usefixtures("one_thread")
CAMERAS = [camera_of(view) for view in VIEWS]
CLASS_IDS = torch.tensor([0, DISCS["red disc"].identity, DISCS["blue disc"].identity])
RED, BLUE = 1, 2  # dense labels
TURN_OF_RED = 4


def labels_of(camera: Camera) -> torch.Tensor:
    labels = torch.zeros(HEIGHT, WIDTH, dtype=torch.int16)
    for label, disc in ((RED, DISCS["red disc"]), (BLUE, DISCS["blue disc"])):
        labels[torch.from_numpy(silhouette(disc, camera.image_name))] = label
    return labels


def hiding() -> tuple[GaussianModel, torch.Tensor, int]:
    """The discs, the owners of their Gaussians, and one of the red ones that hides behind the blue disc."""
    model = disc_model()
    owners = torch.searchsorted(CLASS_IDS, model.get_objects[:, 0].argmax(1))
    row = int((owners == RED).nonzero()[0])
    blue = DISCS["blue disc"]
    with torch.no_grad():
        model.params["xyz"][row] = torch.tensor([blue.x, blue.y, DEPTH + 0.5])
        model.params["scaling"][row] = torch.tensor([0.05, 0.05, 0.05]).log()
        model.params["opacity"][row] = 2.0
    return model, owners, row


def renewed(model: GaussianModel, owners: torch.Tensor) -> AloneLoss:
    loss = AloneLoss()
    loss.renew(model, CAMERAS, CAMERAS, labels_of, CLASS_IDS, owners)
    return loss


def test_what_hides_behind_another_object_fades_and_nothing_else_changes() -> None:
    model, owners, row = hiding()
    loss, camera = renewed(model, owners), CAMERAS[0]
    loss.turn = TURN_OF_RED
    loss(model, camera, labels_of(camera)).backward()
    faded = model.params["opacity"].grad
    assert faded is not None and faded[row] > 0  # a step against it makes it fainter
    others = torch.ones(model.num_gaussians, dtype=torch.bool)
    others[row] = False
    assert faded[others].abs().max() < 0.02 * faded[row]
    assert not faded[owners == BLUE].any()
    assert all(model.params[name].grad is None for name in ("f_dc", "f_rest", "obj_dc"))


def test_it_may_stay_where_another_view_shows_it() -> None:
    model, owners, row = hiding()
    loss, camera = renewed(model, owners), CAMERAS[0]
    loss.turn = TURN_OF_RED
    strict = loss(model, camera, labels_of(camera)).item()
    seen = loss.objects[RED]
    near = model.get_xyz.detach()[row] + torch.randn(500, 3) * 0.08
    loss.objects[RED] = Object.of(seen.rows, torch.cat([seen.points, near]))
    loss.turn = TURN_OF_RED
    assert loss(model, camera, labels_of(camera)).item() < 0.1 * strict


def test_the_loss_is_the_alpha_outside_times_the_objects_that_take_turns() -> None:
    model, owners, _ = hiding()
    loss, camera = renewed(model, owners), CAMERAS[0]
    labels = labels_of(camera)
    alpha = alone.draw_alone(camera, model, loss.objects[RED].rows, torch.ones(int((owners == RED).sum()), 1))
    outside = (labels != RED) & ~loss.hull(camera, loss.objects[RED])
    expected = WEIGHT * 2 * alpha[0][outside].sum().item() / labels.numel()
    loss.turn = TURN_OF_RED
    assert loss(model, camera, labels).item() == pytest.approx(expected, rel=1e-4) and expected > 0
    without_labels = torch.full_like(labels, -1)
    loss.turn = TURN_OF_RED
    assert loss(model, camera, without_labels).item() == 0


def test_objects_take_turns_over_the_views(monkeypatch: pytest.MonkeyPatch) -> None:
    model, owners, _ = hiding()
    loss = renewed(model, owners)
    drawn: list[int] = []

    def draw(
        camera: Camera, model: GaussianModel, rows: torch.Tensor, channels: torch.Tensor
    ) -> torch.Tensor:
        drawn.append(int(owners[rows[0]]))
        return torch.zeros(1, HEIGHT, WIDTH)

    monkeypatch.setattr(alone, "draw_alone", draw)
    for camera in CAMERAS:  # each view once: every object has had its turn
        loss(model, camera, labels_of(camera))
    assert drawn == [RED, BLUE] * (len(CAMERAS) // 2)
    assert AloneLoss()(model, CAMERAS[0], labels_of(CAMERAS[0])).item() == 0  # before the first election


def test_what_most_views_cut_off_is_no_object_nor_is_id_0() -> None:
    model, owners, _ = hiding()

    def cut(camera: Camera) -> torch.Tensor:
        labels = labels_of(camera)
        if camera is not CAMERAS[0]:
            labels[labels == 0], labels[:, -1] = -1, BLUE
        return labels

    whole = shown_whole(CAMERAS, cut)
    assert whole[0] == {CAMERAS[0].image_name: False} and all(whole[RED].values())
    assert [camera.image_name for camera in CAMERAS if whole[BLUE][camera.image_name]] == [
        CAMERAS[0].image_name
    ]
    loss = AloneLoss()
    owners[owners == BLUE] = torch.arange(int((owners == BLUE).sum())) % 2 * BLUE  # id 0 is shown, too
    loss.renew(model, CAMERAS, CAMERAS, cut, CLASS_IDS, owners)
    assert set(loss.objects) == {RED}


def test_the_hull_holds_what_voxels_enclose_whatever_shows_there() -> None:
    loss, camera, radius = AloneLoss(), CAMERAS[0], 20.0  # pixels
    loss.width = 2 * DEPTH / FOCAL
    x, y = VIEWS[camera.image_name]
    angles = torch.arange(400) * (2 * torch.pi / 400)
    ring = torch.stack([angles.cos(), angles.sin(), torch.zeros(400)], 1) * radius * DEPTH / FOCAL
    ring = ring + torch.tensor([x, y, DEPTH])
    inside = loss.hull(camera, Object.of(torch.zeros(1), ring))
    rows, columns = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    distance = ((columns - CX) ** 2 + (rows - CY) ** 2).sqrt()
    assert inside[distance < radius].all()
    assert not inside[distance > radius + 2 + 0.03 * radius].any()  # its corners lie 2% further out
    errors = torch.tensor([[x + 1.0, y, DEPTH], [x, y, -DEPTH]])
    with_errors = Object(torch.zeros(1), torch.cat([ring, errors]), ring.mean(0).double().numpy())
    assert torch.equal(loss.hull(camera, with_errors), inside)


def test_it_survives_saving() -> None:
    model, owners, _ = hiding()
    loss, other = renewed(model, owners), AloneLoss()
    loss(model, CAMERAS[0], labels_of(CAMERAS[0]))
    other.load_state_dict(loss.state_dict(), torch.device("cpu"))
    for _ in range(2):
        one, two = (each(model, CAMERAS[0], labels_of(CAMERAS[0])) for each in (loss, other))
        assert torch.equal(one, two)
    assert loss.turn == other.turn == 3 and loss.in_view == other.in_view
