"""Repair of training labels: what must change, what must stay, and that chunks and threads do not matter."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gradiseg.classifier import IGNORED, IdentityClassifier
from gradiseg.repair.labels import Census, TrainingLabels, _joined, label_weights
from scene.cameras import Camera

SIZE, VIEWS = 24, 10
TABLE, CUP, SPOON, FRESH = 1, 2, 3, 9  # ids; dense labels are 1, 2, 3, 4 beside 0 for unlabelled


def truth() -> Tensor:
    """A table with a cup on it and a spoon two pixels wide."""
    ids = torch.full((SIZE, SIZE), TABLE)
    ids[4:12, 4:12] = CUP
    ids[16:18, 2:22] = SPOON
    return ids


def view(uid: int, ids: Tensor | None) -> Camera:
    """A camera whose mask is `ids`."""
    objects = None if ids is None else ids.to(torch.uint8)
    return Camera(uid, f"v{uid}", SIZE, SIZE, 20.0, 20.0, 12.0, 12.0, np.eye(3), np.zeros(3), None, objects)


def one_hot_classifier(ignore_label: int = -1) -> IdentityClassifier:
    """Logit of dense label c is 8 times channel c."""
    classifier = IdentityClassifier([0, TABLE, CUP, SPOON, FRESH], 16, ignore_label)
    with torch.no_grad():
        classifier.weight.copy_(8 * torch.eye(len(classifier.class_ids), 16))
        classifier.bias.zero_()
    return classifier


def encoded(classifier: IdentityClassifier, ids: Tensor) -> Tensor:
    """Identity map (16, H, W) that is certain of `ids`."""
    labels = classifier.labels(ids).long().clamp_min(0)
    return torch.nn.functional.one_hot(labels, 16).permute(2, 0, 1).float()


def repaired(masks: list[Tensor], identity_map: Tensor, margin: float = 3.0) -> list[Tensor]:
    """The labels after a repair of views that all render `identity_map`."""
    labels = TrainingLabels(one_hot_classifier())
    cameras = [view(uid, ids) for uid, ids in enumerate(masks)]
    labels.repair(cameras, lambda camera: identity_map, margin)
    return [labels(camera) for camera in cameras]


def test_a_missed_object_a_fresh_id_and_a_bite_are_repaired() -> None:
    masks = [truth() for _ in range(VIEWS)]
    masks[0][masks[0] == CUP] = 0
    masks[1][masks[1] == CUP] = FRESH
    masks[2][4:8, 4:12] = TABLE
    classifier = one_hot_classifier()
    for labels in repaired(masks, encoded(classifier, truth())):
        assert torch.equal(labels.int(), classifier.labels(truth()))


def test_a_thin_object_that_the_model_half_believes_in_stays() -> None:
    classifier = one_hot_classifier()
    certain = encoded(classifier, truth())
    on_table = encoded(classifier, torch.full((SIZE, SIZE), TABLE))
    doubtful = torch.where(truth() == SPOON, 0.46 * certain + 0.54 * on_table, certain)
    probabilities = torch.softmax(classifier(doubtful.permute(1, 2, 0)), -1)[16, 2]
    assert probabilities[1] > 1.5 * probabilities[3]  # taken for the table by argmax
    for labels in repaired([truth() for _ in range(VIEWS)], doubtful):
        assert torch.equal(labels.int(), classifier.labels(truth()))


def second_id(views: int, both: int = 0) -> tuple[list[Tensor], Tensor]:
    """Masks whose cup has the id FRESH in so many views, and in how many of them a corner of CUP as well.

    And ids of a model that learned FRESH for the half of the cup that was seen then.
    """
    masks = [truth() for _ in range(VIEWS)]
    for number, mask in enumerate(masks[:views]):
        mask[mask == CUP] = FRESH
        if number < both:
            mask[10:12, 10:12] = CUP
    learned = truth()
    learned[4:12, 4:8] = FRESH
    return masks, learned


def test_a_second_id_of_one_object_is_joined_to_the_first() -> None:
    classifier = one_hot_classifier()
    masks, learned = second_id(4)
    for labels in repaired(masks, encoded(classifier, learned)):
        assert torch.equal(labels.int(), classifier.labels(truth()))


def test_probabilities_of_aliases_add_up_where_they_count() -> None:
    probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    joined = _joined(probabilities, torch.tensor([2, 1, 2, 2]))
    torch.testing.assert_close(joined, torch.tensor([[0.0, 0.2, 0.8, 0.0], [0.0, 0.1, 0.9, 0.0]]))
    assert torch.equal(_joined(probabilities, torch.arange(4)), probabilities)


def test_a_label_without_pixels_is_nobodys_alias() -> None:
    census = Census(3)
    census.pixels[:], census.probability[:] = [90, 0, 50], 1.0
    census.leak[1, 0] = 30.0  # all of what little the model takes for it
    assert census.aliases().tolist() == [0, 1, 2]


def test_labels_that_one_view_has_side_by_side_are_two_objects() -> None:
    classifier = one_hot_classifier()
    masks, learned = second_id(4, both=1)
    for labels in repaired(masks, encoded(classifier, learned)):
        assert (labels[4:12, 4:8] == classifier.labels(learned)[4:12, 4:8]).all()


def test_unlabelled_pixels_are_not_favoured_for_being_rarely_certain() -> None:
    classifier = one_hot_classifier()
    hole = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    hole[4:8, 4:12] = hole[20:24, 4:12] = hole[16:18, 2:12] = True  # of the cup, the table and the spoon
    masks = [truth() for _ in range(VIEWS)]
    masks[0][hole] = 0
    certain = encoded(classifier, truth())
    nothing = encoded(classifier, torch.zeros(SIZE, SIZE, dtype=torch.int64))
    doubtful = torch.where(hole, 0.55 * certain + 0.45 * nothing, certain)  # p(0) = 0.3, and no rival of 0.6
    for labels in repaired(masks, doubtful, margin=1.0)[1:]:
        assert torch.equal(labels.int(), classifier.labels(truth()))


def test_gaps_along_boundaries_close_but_an_unlabelled_region_stays() -> None:
    classifier = one_hot_classifier()
    gap = truth()
    gap[3, 3:13] = gap[12, 3:13] = 0
    masks = [gap.clone() for _ in range(VIEWS)]
    certain, nothing = encoded(classifier, truth()), encoded(classifier, torch.zeros_like(gap))
    doubtful = torch.where(gap == 0, 0.49 * nothing + 0.51 * certain, certain)  # p(0) = 0.44
    for labels in repaired(masks, doubtful):
        assert torch.equal(labels.int(), classifier.labels(truth()))
    sure = torch.where(gap == 0, 0.6 * nothing + 0.4 * certain, certain)  # p(0) = 0.79
    for labels in repaired(masks, sure):
        assert torch.equal(labels.int(), classifier.labels(gap))


def test_a_wider_margin_changes_fewer_labels_and_an_infinite_one_only_unsupported_ones() -> None:
    torch.manual_seed(0)
    classifier = one_hot_classifier()
    noisy = encoded(classifier, truth()) + 0.3 * torch.randn(16, SIZE, SIZE)
    masks = [torch.where(torch.rand(SIZE, SIZE) < 0.1, TABLE, truth()) for _ in range(VIEWS)]
    expected = [classifier.labels(mask) for mask in masks]
    changed = [
        sum(int((a != b).sum()) for a, b in zip(repaired(masks, noisy, margin), expected, strict=True))
        for margin in (1.0, 3.0, 10.0, 1e9)
    ]
    assert changed[0] > changed[1] > changed[2] > changed[3] == 0


def test_ignored_pixels_and_views_without_masks_stay_so() -> None:
    labels = TrainingLabels(one_hot_classifier(ignore_label=0))
    mask = truth()
    mask[:4] = 0
    cameras = [view(0, mask), view(1, None)]
    labels.repair(cameras, lambda camera: encoded(labels.classifier, truth()), 3.0)
    assert (labels(cameras[0])[:4] == IGNORED).all()
    assert list(labels.state_dict()) == [0]


def test_a_second_repair_starts_from_the_masks() -> None:
    labels = TrainingLabels(one_hot_classifier())
    camera = view(0, truth())
    wrong = encoded(labels.classifier, torch.full((SIZE, SIZE), SPOON))
    labels.repair([camera], lambda _: wrong, 1.0)
    labels.repair([camera], lambda _: encoded(labels.classifier, truth()), 1.0)
    assert torch.equal(labels(camera).int(), labels.classifier.labels(truth()))


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_do_not_depend_on_threads_or_chunks(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    identity_map = encoded(one_hot_classifier(), truth()) + 0.5 * torch.randn(16, SIZE, SIZE)
    masks = [truth()] * 2
    expected = repaired(masks, identity_map)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    monkeypatch.setattr("gradiseg.classifier.CHUNK", 128)
    found = repaired(masks, identity_map)
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_outlines_are_corrected_before_repairs_start_from_them() -> None:
    size, true_radius = 96, 32
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    distance = torch.hypot(y - 47.5, x - 47.5)
    photograph = torch.where(distance < true_radius, 220, 20).expand(3, size, size).to(torch.uint8)
    small = torch.where(distance < true_radius - 1.3, CUP, TABLE).to(torch.uint8)
    labels = TrainingLabels(one_hot_classifier())
    cameras = [
        Camera(uid, f"v{uid}", size, size, 20.0, 20.0, 24.0, 24.0, np.eye(3), np.zeros(3), photograph, small)
        for uid in range(VIEWS)
    ]
    cameras.append(view(VIEWS, None))
    masks = [labels(camera) for camera in cameras[:-1]]
    labels.correct_outlines(cameras)
    cup = labels.classifier.labels(torch.tensor(CUP))
    true = distance < true_radius
    for mask, camera in zip(masks, cameras, strict=False):
        assert ((labels(camera) == cup) != true).sum() < 0.7 * ((mask == cup) != true).sum()

    corrected = [labels(camera) for camera in cameras[:-1]]
    learned = encoded(labels.classifier, torch.where(true, CUP, TABLE))
    labels.repair(cameras, lambda _: learned, 1e9)  # wider than any contradiction
    assert all(torch.equal(labels(c), before) for c, before in zip(cameras, corrected, strict=False))


def test_state_survives_a_round_trip() -> None:
    labels, copy = TrainingLabels(one_hot_classifier()), TrainingLabels(one_hot_classifier())
    cameras = [view(uid, truth()) for uid in range(2)]
    labels.repair(cameras, lambda camera: encoded(labels.classifier, truth().T), 1.0)
    copy.load_state_dict(labels.state_dict())
    assert all(torch.equal(copy(camera), labels(camera)) for camera in cameras)


def test_weights_are_inverse_confidences_and_nothing_without_support() -> None:
    agreement = torch.tensor([[0.8, 0.2, 0.0], [0.7, 0.3, 0.0], [0.55, 0.0, 0.45]], dtype=torch.float64)
    assert torch.allclose(label_weights(agreement), torch.tensor([1 / 0.8, 0.0, 1 / 0.45]))
    assert label_weights(torch.zeros(2, 2)).tolist() == [0.0, 0.0]
