"""Selecting objects by their ids: threshold, hull rules."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from gradiseg.selection.by_id import count_ids, select_objects
from gradiseg.selection.hull import HullRule
from gradiseg.votes import Votes

CLASSES = 4


def one_hot_classifier() -> nn.Conv2d:
    """Class c's logit is channel c."""
    classifier = nn.Conv2d(16, CLASSES, 1)
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.weight[:, :CLASSES, 0, 0] = torch.eye(CLASSES)
        assert classifier.bias is not None
        classifier.bias.zero_()
    return classifier


def encodings(ids: Tensor, logit: float = 8.0) -> Tensor:
    """Encodings (N, 1, 16) that the classifier above gives to these ids."""
    identity = torch.zeros(len(ids), 1, 16)
    identity[torch.arange(len(ids)), 0, ids] = logit
    return identity


def sphere(count: int, centre: tuple[float, float, float], seed: int) -> Tensor:
    """Points on a unit sphere."""
    directions = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=1, keepdim=True) + torch.tensor(centre)


def test_counts_add_up_to_all_gaussians() -> None:
    ids = torch.tensor([0, 2, 2, 3, 3, 3])
    assert count_ids(encodings(ids), one_hot_classifier()) == {0: 1, 2: 2, 3: 3}


def test_votes_go_before_encodings_where_there_are_some() -> None:
    identity = encodings(torch.tensor([1, 1, 1, 2]))
    votes = Votes(
        torch.tensor([1, 2, 1, 1]), torch.tensor([0.9, 0.9, 0.0, 0.2]), torch.tensor([9.0, 9, 0, 9])
    )
    select = partial(select_objects, torch.randn(4, 3), identity, one_hot_classifier(), hull=HullRule.NONE)
    by_encoding, _ = select(selected=[1], threshold=0.3)
    by_votes, _ = select(selected=[1], threshold=0.7, votes=votes)
    assert by_encoding.tolist() == [True, True, True, False]
    assert by_votes.tolist() == [
        True,
        False,
        True,
        False,
    ]  # the third has no votes
    assert select(selected=[1, 2], threshold=0.3, votes=votes)[0].all()


def test_a_higher_threshold_selects_a_subset() -> None:
    torch.manual_seed(1)
    identity = 3 * torch.randn(500, 1, 16)
    points = torch.randn(500, 3)
    selections = [
        select_objects(points, identity, one_hot_classifier(), [1], threshold, HullRule.NONE)[0]
        for threshold in (0.1, 0.3, 0.9)
    ]
    assert all(bool((high <= low).all()) for low, high in pairwise(selections))
    assert 0 < int(selections[-1].sum()) < int(selections[0].sum())


def test_the_hull_takes_the_uncertain_inside_and_spares_other_objects() -> None:
    shell = sphere(200, (0, 0, 0), 2)
    extra = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.0, 0.1, 0], [5.0, 0, 0]])
    points = torch.cat([shell, extra])
    identity = encodings(torch.cat([torch.full((200,), 1), torch.tensor([0, 2, 3, 0])]))
    identity[-2] = 0  # inside and of no certain id

    spare, counts = select_objects(points, identity, one_hot_classifier(), [1], 0.3)
    assert spare[200:].tolist() == [True, False, True, False]
    assert counts == {"by_threshold": 200, "by_hull": 2, "flat": 0}
    everything, _ = select_objects(points, identity, one_hot_classifier(), [1], 0.3, HullRule.ALL)
    assert everything[200:].tolist() == [True, True, True, False]
    nothing, _ = select_objects(points, identity, one_hot_classifier(), [1], 0.3, HullRule.NONE)
    assert nothing[200:].tolist() == [False] * 4


def test_the_space_between_two_selected_objects_stays() -> None:
    points = torch.cat([sphere(100, (-3, 0, 0), 3), sphere(100, (3, 0, 0), 4), torch.zeros(1, 3)])
    ids = torch.tensor([1] * 100 + [2] * 100 + [0])
    selection, _ = select_objects(points, encodings(ids), one_hot_classifier(), [1, 2], 0.3)
    assert selection[:200].all() and not selection[200]
