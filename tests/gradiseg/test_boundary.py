"""Boundary steps: which channel a label has, which pixels count, what moves and what does not."""

import pytest
import torch

from gaussian_renderer import render
from gradiseg.boundary import AGREEMENT, RENEWAL, WEIGHT, BoundaryLoss, share_channels, touching
from gradiseg.classifier import IdentityClassifier
from gradiseg.votes import Votes
from scene.ply import IDENTITY_DIM
from tests.disc_scene import DEPTH, DISCS, disc_model
from tests.gradiseg.test_votes import camera_of, ids_of

pytestmark = pytest.mark.usefixtures("one_thread")


def loss_of(ids: torch.Tensor, classes: int = 8) -> BoundaryLoss:
    """The loss that holds the Gaussians to these ids."""
    loss = BoundaryLoss()
    ones = torch.ones(len(ids))
    loss.renew(7, Votes(ids, ones, ones), torch.arange(classes), [ids_of(camera_of("view.0"))])
    return loss


def test_labels_touch_where_their_pixels_are_neighbours_in_some_view() -> None:
    one = torch.tensor([[0, 0, 1], [-1, -1, -1], [2, 2, 2]])
    two = torch.tensor([[3], [2]])
    matrix = touching([one, two], 5)
    assert torch.equal(matrix, matrix.T)
    assert matrix.nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


def test_few_labels_have_a_channel_each() -> None:
    assert share_channels(torch.ones(16, 16, dtype=torch.bool)).tolist() == list(range(16))


def test_many_labels_share_channels_but_not_with_neighbours() -> None:
    count = 60
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(count, count, generator=generator) < 0.1
    matrix[0] = True  # the table touches all
    matrix = (matrix | matrix.T) & ~torch.eye(count, dtype=torch.bool)
    channels = share_channels(matrix)
    assert channels.min() >= 0 and channels.max() < IDENTITY_DIM
    assert not (matrix & (channels[:, None] == channels)).any()
    assert (share_channels(~torch.eye(count, dtype=torch.bool)) >= 0).all()  # none free: still one each


def test_the_loss_is_the_mass_in_pixels_of_others_where_the_label_has_the_majority() -> None:
    loss = loss_of(torch.tensor([0, 1]))
    rendered = torch.zeros(IDENTITY_DIM, 1, 4)
    rendered[0, 0], rendered[1, 0] = torch.tensor([0.7, 0.3, 0.2, 0.6]), torch.tensor([0.2, 0.6, 0.0, 0.1])
    labels = torch.tensor([[0, 0, 0, -1]])  # counts; the majority is another's; counts; no label
    assert loss(rendered, labels).item() == pytest.approx(WEIGHT * (0.2 + 0.0) / 4)


def test_a_label_that_is_caught_in_part_needs_no_majority() -> None:
    loss = loss_of(torch.tensor([0, 1]))
    loss.sufficient = torch.full((8,), 1.0)
    loss.sufficient[0] = 0.4
    rendered = torch.zeros(IDENTITY_DIM, 1, 4)
    rendered[0, 0], rendered[1, 0] = torch.tensor([0.3, 0.1, 0.6, 0.6]), torch.tensor([0.6, 0.6, 0.3, 0.3])
    labels = torch.tensor([[0, 0, 0, 1]])  # half of the other's, a sixth, more; the other without a majority
    assert loss(rendered, labels).item() == pytest.approx(WEIGHT * (0.6 + 0.3) / 4)


def test_a_gaussian_over_another_object_draws_back_and_nothing_else_moves() -> None:
    model, camera, blue = disc_model(), camera_of("view.0"), DISCS["blue disc"]
    owner = model.get_objects[:, 0].argmax(1)
    assert owner[0] == DISCS["red disc"].identity
    with torch.no_grad():  # one of the red disc's lies before the left rim of the blue one
        model.params["xyz"][0] = torch.tensor([blue.x - blue.radius, blue.y, DEPTH - 0.2])
        model.params["scaling"][0], model.params["opacity"][0] = -3.0, -1.0
    loss = loss_of(owner)
    package = render(camera, model, override_identity=loss.codes)
    loss(package["render_object"], ids_of(camera)).backward()
    moved, faded = model.params["xyz"].grad, model.params["opacity"].grad
    assert moved is not None and faded is not None
    assert moved[0, 0] > 0 and faded[0] > 0  # a step against it: to the left, and fainter
    assert faded[0] > 3 * faded[1:].abs().max()
    assert model.params["obj_dc"].grad is None and model.params["f_dc"].grad is not None


def test_encodings_that_name_another_learn_the_owner_that_votes_decided_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    classifier = IdentityClassifier([2, 3, 5, 9], 16)
    encodings = (5 * torch.randn(300, 16)).requires_grad_()
    ids, mass = classifier.class_ids[torch.randint(4, (300,))], torch.full((300,), 5.0)
    share = torch.full((300,), 0.8)
    mass[:10], share[10:20] = 0.5, 0.4  # hidden, undecided
    loss = BoundaryLoss()
    loss.renew(7, Votes(ids, share, mass), classifier.class_ids, [])
    optimizer = torch.optim.Adam([encodings], lr=0.2)
    first = encodings.detach().clone()
    named = classifier(first).softmax(1).gather(1, loss.owners[:, None])[:, 0] >= AGREEMENT
    assert 20 < named.sum() < 280
    once, twice = (loss.of_encodings(encodings, classifier, scale) for scale in (1.0, 2.0))
    assert once > 0 and twice.item() == pytest.approx(2 * once.item())
    for _ in range(200):
        optimizer.zero_grad()
        loss.of_encodings(encodings, classifier, 2.0).backward()
        optimizer.step()
    said = classifier.class_ids[classifier(encodings).argmax(1)]
    assert torch.equal(said[20:], ids[20:]) and torch.equal(encodings[:20].detach(), first[:20])
    assert torch.equal(encodings[named].detach(), first[named])
    assert classifier.weight.grad is None and classifier.bias.grad is None


def test_an_encoding_is_pulled_to_its_owner_by_the_pixels_that_it_colours() -> None:
    """At least as strongly as the mean, in any case; the loss itself does not know."""
    classifier = IdentityClassifier([2, 3], 16)
    mass = torch.tensor([2.0, 10.0, 90.0, 98.0])  # the mean is 50
    same = torch.zeros(4, 16)
    with torch.no_grad():
        classifier.weight[:], classifier.bias[:] = torch.eye(2, 16), torch.tensor([1.0, 0.0])
    gradients, values = [], []
    for pixels in (mass, torch.full_like(mass, 50.0)):
        loss, encodings = BoundaryLoss(), same.clone().requires_grad_()
        loss.renew(7, Votes(torch.full((4,), 3), torch.full((4,), 0.8), pixels), classifier.class_ids, [])
        value = loss.of_encodings(encodings, classifier, 1.0)
        value.backward()
        assert encodings.grad is not None
        gradients.append(encodings.grad)
        values.append(value.item())
    assert values[0] == values[1] and gradients[1].abs().sum() > 0
    torch.testing.assert_close(gradients[0], torch.tensor([[1.0], [1.0], [1.8], [1.96]]) * gradients[1])


def test_owners_are_frozen_between_elections_and_survive_saving() -> None:
    loss = loss_of(torch.tensor([3, 5, 3]))
    assert loss.codes.argmax(1).tolist() == [3, 5, 3]
    assert loss.is_due(8, num_gaussians=4) and not loss.is_due(8, num_gaussians=3)
    assert not loss.is_due(7 + RENEWAL - 1, 3) and loss.is_due(7 + RENEWAL, 3)
    other = BoundaryLoss()
    other.load_state_dict(loss.state_dict(), torch.device("cpu"))
    assert torch.equal(other.codes, loss.codes) and not other.is_due(8, 3)
    assert torch.equal(other.pull, loss.pull) and len(other.pull) == 3


def test_pulls_have_the_same_bits_for_any_number_of_threads() -> None:
    count = 70_000  # so many that torch would share them out
    mass = 100 * torch.rand(count, generator=torch.Generator().manual_seed(0))
    pulls = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        loss = BoundaryLoss()
        loss.renew(
            7, Votes(torch.zeros(count, dtype=torch.int64), torch.ones(count), mass), torch.arange(1), []
        )
        pulls.append(loss.pull)
    assert torch.equal(pulls[0], pulls[1]) and torch.equal(pulls[0], pulls[2])


def test_where_all_encodings_agree_there_is_no_loss_and_no_gradient() -> None:
    classifier = IdentityClassifier([2, 3], 16)
    with torch.no_grad():
        classifier.weight[:], classifier.bias[:] = torch.eye(2, 16), torch.tensor([9.0, 0.0])
    encodings = torch.zeros(5, 16, requires_grad=True)
    loss = BoundaryLoss()
    loss.renew(7, Votes(torch.full((5,), 2), torch.ones(5), torch.full((5,), 9.0)), classifier.class_ids, [])
    value = loss.of_encodings(encodings, classifier, 1.0)
    value.backward()
    assert value == 0 and encodings.grad is not None and not encodings.grad.any()
