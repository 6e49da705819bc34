"""Which Gaussians belong to the objects of some ids.

Naming contract: `identity` are the encodings (N, 1, 16), `selected` the ids of the object(s), a selection
is a boolean tensor (N,). A Gaussian is selected where the classifier's softmax of any selected id exceeds a
threshold (Gaussian Grouping's rule), and the convex hull of those fills the inside (`hull`). Where a run has
stored the votes of its Gaussians' pixels (`gradiseg.votes`), the owner's share of them takes the place of the
softmax wherever they decide.

Two differences from Gaussian Grouping, which takes one hull around all selected ids and everything in it:
- each id has a hull of its own, since a common one would bridge two objects and clear the space between
  them;
- the hull spares Gaussians that confidently (softmax > 0.5) belong to another object, so that a cup on a
  book does not take the book with it. `HullRule.ALL` takes these too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradiseg.classifier import UNLABELLED, Classified, classify, identify
from gradiseg.selection.hull import HullRule, inside_hull
from gradiseg.votes import Votes

CONFIDENT = 0.5  # above it an id has the majority, whatever the number of classes


def count_ids(identity: Tensor, classifier: nn.Conv2d) -> dict[int, int]:
    """Gaussians per most probable id, of the ids that occur; identity (N, 1, 16)."""
    counts = identify(identity.flatten(1), classifier).bincount()
    return {int(chosen): int(counts[chosen]) for chosen in counts.nonzero().flatten()}


def select_objects(
    points: Tensor,
    identity: Tensor,
    classifier: nn.Conv2d,
    selected: Sequence[int],
    threshold: float,
    hull: HullRule = HullRule.SPARE,
    votes: Votes | None = None,
) -> tuple[Tensor, dict[str, int]]:
    """Selects the Gaussians of the given ids.

    Args:
        points: centres (N, 3).
        identity: encodings (N, 1, 16).

    Returns:
        the selection (N,) bool, and how many Gaussians the threshold and the hulls brought in
        (`by_threshold`, `by_hull`, and `flat` = ids whose points span no volume and have no hull).
    """
    classified = classify(identity.flatten(1), classifier, selected)
    if votes is not None:
        classified = _voted(classified, votes, selected)
    by_id = classified.probabilities > threshold  # (N, S)
    by_threshold = by_id.any(1)
    total, flat = by_threshold.clone(), 0
    if hull is not HullRule.NONE:
        for column in range(len(selected)):
            inside = inside_hull(points, by_id[:, column])
            flat += int(inside is None)
            if inside is not None:
                total |= inside
    if hull is HullRule.SPARE:
        total &= by_threshold | ~_others(classified, selected)
    before = int(by_threshold.sum())
    return total, {"by_threshold": before, "by_hull": int(total.sum()) - before, "flat": flat}


def _voted(classified: Classified, votes: Votes, selected: Sequence[int]) -> Classified:
    """What the votes say where they decide, what the classifier says of the others."""
    decide = votes.decide
    own = votes.ids[:, None] == votes.ids.new_tensor(list(selected))  # (N, S)
    return Classified(
        torch.where(decide[:, None], own * votes.share[:, None], classified.probabilities),
        torch.where(decide, votes.ids, classified.ids),
        torch.where(decide, votes.share, classified.confidence),
    )


def _others(classified: Classified, selected: Sequence[int]) -> Tensor:
    """Gaussians that confidently belong to an object that is not selected."""
    own = classified.ids.new_tensor([UNLABELLED, *selected])
    return ~torch.isin(classified.ids, own) & (classified.confidence > CONFIDENT)
