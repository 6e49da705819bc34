"""Codes stay apart for any number of ids, and the classifier reads mixtures as covered shares of a pixel."""

import pytest
import torch

from gradiseg.finished.codes import codes_of, matching_classifier, spread_directions
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


def test_ids_need_a_class() -> None:
    with pytest.raises(UserError, match="--num_classes 301"):
        matching_classifier(torch.tensor([4, 300]), 256)
