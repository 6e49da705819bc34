"""Codes stay apart for any number of ids, and the classifier reads mixtures as covered shares of a pixel."""

import pytest
import torch

from gradiseg.finished.codes import codes_of, matching_classifier, spread_directions, weigh_rows
from utils.errors import UserError


@pytest.mark.parametrize(("count", "largest"), [(3, 1e-6), (15, 1e-6), (16, 0.07), (40, 1 / 3), (200, 0.5)])
def test_directions_are_unit_vectors_far_apart_and_always_the_same(count: int, largest: float) -> None:
    vectors = spread_directions(count, 15)
    products = (vectors @ vectors.T).abs()
    torch.testing.assert_close(products.diagonal(), torch.ones(count))
    assert float(products.fill_diagonal_(0).max()) <= largest
    assert torch.equal(vectors, spread_directions(count, 15))


@pytest.mark.parametrize("count", [2, 15, 60])
@torch.no_grad()
def test_the_larger_share_of_a_pixel_wins(count: int) -> None:
    ids = 2 + 3 * torch.arange(count)
    classifier = matching_classifier(ids, 256)
    codes = codes_of(classifier)
    assert classifier.class_ids.tolist() == [0, *ids.tolist()] and not codes[0].any()

    def read(encodings: torch.Tensor) -> torch.Tensor:
        return classifier.class_ids[classifier(encodings).argmax(-1)]

    assert torch.equal(read(codes), classifier.class_ids)
    own, other = codes[1:, None], codes[None, 1:]  # every pair
    between = read(0.55 * own + 0.45 * other)
    assert (between == ids[:, None]).all()
    assert (read(0.55 * codes[1:]) == ids).all() and not read(0.45 * codes[1:]).any()  # beside nothing
    probabilities = classifier(0.55 * own + 0.45 * other).softmax(-1)
    assert float(probabilities.amax(-1).min()) > 0.5  # the rules > 0.2, > 0.5 and argmax agree


@torch.no_grad()
def test_a_share_counts_as_much_as_its_votes() -> None:
    classifier = matching_classifier(torch.arange(1, 5), 256)
    thin, thick, other, _ = codes = codes_of(classifier)[1:]
    weigh_rows(classifier, torch.tensor([0.3, 2.0, 1.0, 0.5, 1.0]))  # of ids 0 to 4; below 1 counts 1

    def read(encodings: torch.Tensor) -> list[int]:
        return classifier.class_ids[classifier(encodings).argmax(-1)].tolist()

    assert read(codes) == [1, 2, 3, 4]
    assert read(torch.stack([0.35 * thin + 0.65 * thick, 0.32 * thin + 0.68 * thick])) == [1, 2]
    assert read(torch.stack([0.48 * thick + 0.52 * other, 0.52 * thick + 0.48 * other])) == [3, 2]
    assert read(torch.stack([0.35 * thin, 0.32 * thin])) == [1, 0]  # beside nothing


@pytest.mark.parametrize("count", [20, 60])
@torch.no_grad()
def test_a_heavy_label_stays_out_of_what_is_others(count: int) -> None:
    """Codes that are not orthogonal: no weight makes a label appear in a code or between two of others."""
    classifier = matching_classifier(torch.arange(1, count + 1), 256)
    codes = codes_of(classifier)
    weights = torch.ones(count + 1)
    weights[7] = 9.0
    weigh_rows(classifier, weights)
    assert torch.equal(classifier.class_ids[classifier(codes).argmax(-1)], classifier.class_ids)
    others = codes[torch.arange(count + 1) != 7][1:]
    between = 0.5 * others[:, None] + 0.5 * others[None]
    assert not (classifier(between).argmax(-1) == 7).any()


def test_ids_need_a_class() -> None:
    with pytest.raises(UserError, match="--num_classes 301"):
        matching_classifier(torch.tensor([4, 300]), 256)
