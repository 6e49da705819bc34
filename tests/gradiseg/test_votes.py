"""Votes are the blending weights, summed by label; they say whose a Gaussian is, and survive saving."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gaussian_renderer import MAPS_PER_PASS, render
from gradiseg.votes import (
    Votes,
    count_votes,
    elect,
    elect_by_masks,
    load_votes,
    save_votes,
)
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from tests.disc_scene import CX, CY, DISCS, FOCAL, HEIGHT, VIEWS, WIDTH, disc_model, silhouette
from tests.gaussians import random_params
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def camera_of(view: str, masked: bool = True) -> Camera:
    """A view of the two discs with their ids as its mask."""
    x, y = VIEWS[view]
    ids = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    for disc in DISCS.values():
        ids[torch.from_numpy(silhouette(disc, view))] = disc.identity
    pose = (np.eye(3), np.array([-x, -y, 0.0]))
    objects = ids if masked else None
    return Camera(0, view, WIDTH, HEIGHT, FOCAL, FOCAL, CX, CY, *pose, objects=objects)


CAMERAS = [camera_of(view) for view in VIEWS]


def ids_of(camera: Camera) -> Tensor:
    """Labels that are the ids themselves."""
    assert camera.objects is not None
    return camera.objects.long()


def random_model(count: int = 60) -> GaussianModel:
    """Random Gaussians before the cameras, large enough to overlap."""
    model = GaussianModel(3)
    params = random_params(count)
    params["xyz"] = 0.5 * params["xyz"] + torch.tensor([0.0, 0.0, 4.0])
    params["scaling"] += 1
    model.set_params(params)
    return model


def test_votes_weigh_the_codes_as_the_rendered_map_does() -> None:
    model = random_model()
    votes = count_votes(model, CAMERAS, ids_of, range(8))
    codes = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = [render(camera, model, override_identity=codes)["render_object"] for camera in CAMERAS]
    rendered = sum(
        (map_[c] * (ids_of(camera) == c)).sum(dtype=torch.float64)
        for camera, map_ in zip(CAMERAS, maps, strict=True)
        for c in range(8)
    )
    assert float((votes * codes).sum(dtype=torch.float64)) == pytest.approx(float(rendered), rel=1e-5)
    assert all(parameter.grad is None for parameter in model.params.values())


def test_pixels_without_a_label_and_views_without_a_mask_do_not_vote() -> None:
    model = random_model()
    mask = camera_of("view.0")
    votes = count_votes(model, [mask, camera_of("view.1", masked=False)], ids_of, range(8))
    torch.testing.assert_close(votes, count_votes(model, [mask], ids_of, range(8)), rtol=0, atol=0)
    ignored = count_votes(
        model, [mask], lambda camera: ids_of(camera).where(ids_of(camera) != 3, -1), range(8)
    )
    assert votes[:, 3].any() and not ignored[:, 3].any()
    others = [c for c in range(8) if c != 3]
    assert torch.equal(ignored[:, others], votes[:, others])


def test_votes_find_the_owner_whatever_the_encodings_say() -> None:
    model = disc_model()
    truth = model.get_objects[:, 0].argmax(1)  # the disc that a Gaussian lies on
    votes = elect(model, CAMERAS, ids_of, torch.arange(8), torch.full((model.num_gaussians,), 7))
    assert (votes.ids == truth).float().mean() > 0.95  # but for some at the rim
    assert votes.share.min() >= 0 and votes.share.max() <= 1 + 1e-6
    assert votes.impurity() < 0.1


def test_labels_in_several_passes_are_labels_in_one() -> None:
    model = random_model()
    labels = {c: (13 * c) % (2 * MAPS_PER_PASS + 3) for c in range(8)}  # spread over three passes
    spread = elect(
        model,
        CAMERAS,
        lambda camera: torch.tensor([labels[c] for c in range(8)])[ids_of(camera)],
        100 + torch.arange(2 * MAPS_PER_PASS + 3),
        torch.zeros(60),
    )
    plain = elect(model, CAMERAS, ids_of, torch.tensor([100 + labels[c] for c in range(8)]), torch.zeros(60))
    assert torch.equal(spread.ids, plain.ids)
    torch.testing.assert_close(spread.share, plain.share)
    torch.testing.assert_close(spread.mass, plain.mass)


def test_masks_on_disk_vote_by_their_ids() -> None:
    model = random_model()
    by_labels = elect(model, CAMERAS, ids_of, torch.arange(8), torch.zeros(60))
    by_masks = elect_by_masks(model, [*CAMERAS, camera_of("view.0", masked=False)], torch.zeros(60))
    assert torch.equal(by_masks.ids, by_labels.ids)
    torch.testing.assert_close(by_masks.mass, by_labels.mass)
    nobody = elect_by_masks(model, [camera_of("view.0", masked=False)], torch.full((60,), 4))
    assert (nobody.ids == 4).all() and not nobody.mass.any()


def test_a_gaussian_that_no_view_sees_is_hidden_and_keeps_what_it_was() -> None:
    model = random_model()
    with torch.no_grad():
        model.params["xyz"][:5, 2] = -3.0  # behind the cameras
    votes = elect(model, CAMERAS, ids_of, torch.arange(8), torch.full((60,), 6))
    assert (votes.ids[:5] == 6).all() and not votes.mass[:5].any() and not votes.share[:5].any()
    assert votes.hidden[:5].all() and not votes.hidden.all()


def test_less_than_half_of_the_votes_decides_nothing() -> None:
    model, stripes = random_model(), (torch.arange(WIDTH) // 10 % 4).expand(HEIGHT, WIDTH)
    votes = elect(model, CAMERAS, lambda _: stripes, torch.arange(4), torch.full((60,), 6))
    counted = count_votes(model, CAMERAS, lambda _: stripes, range(4))
    decided = (counted.amax(1) > 0.5 * counted.sum(1)) & (counted.sum(1) >= 1)
    assert decided.any() and not decided.all() and torch.equal(votes.decide, decided)
    assert (votes.ids[~decided] == 6).all() and torch.equal(votes.ids[decided], counted.argmax(1)[decided])


def test_impurity_is_the_share_of_votes_for_others() -> None:
    votes = Votes(torch.tensor([1, 1, 2]), torch.tensor([1.0, 0.5, 0.75]), torch.tensor([10.0, 30.0, 40.0]))
    assert votes.impurity() == pytest.approx((15 + 10) / 80)
    assert votes.impurity(votes.ids == 1) == pytest.approx(15 / 40)
    assert votes.impurity(votes.ids == 9) == 0


def test_votes_survive_saving_and_files_of_others_are_refused(tmp_path: Path) -> None:
    model, path = random_model(), tmp_path / "votes.npz"
    assert load_votes(path, model) is None
    votes = elect(model, CAMERAS, ids_of, torch.arange(8), torch.zeros(60))
    save_votes(path, votes)
    loaded = load_votes(path, model)
    assert loaded is not None
    for name in ("ids", "share", "mass"):
        assert torch.equal(getattr(loaded, name), getattr(votes, name))
    with pytest.raises(UserError, match=r"60 Gaussians, but the model beside it has 59"):
        load_votes(path, random_model(59))
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (b"PK nothing", whole[:middle], whole[:60] + bytes(60) + whole[120:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            load_votes(path, model)
