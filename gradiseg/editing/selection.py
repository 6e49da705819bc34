"""Which Gaussians belong to an object.

Naming contract: `identity` are the encodings (N, 1, 16), `selected` the ids of the object(s), a selection
is a boolean tensor (N,). A Gaussian is selected where the classifier's softmax of any selected id exceeds a
threshold (Gaussian Grouping's rule). Supervision only ever reaches what the cameras see, so the inside of
an object carries no reliable id; the convex hull of the selected Gaussians fills it in.

Two differences from Gaussian Grouping, which takes one hull around all selected ids and everything in it:
- each id has a hull of its own, since a common one would bridge two objects and clear the space between
  them;
- the hull spares Gaussians that confidently (softmax > 0.5) belong to another object, so that a cup on a
  book does not take the book with it. `HullRule.ALL` takes these too.
"""

import enum
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor, nn

from gradiseg.classifier import CHUNK, identity_of_gaussians

CONFIDENT = 0.5  # above it an id has the majority, whatever the number of classes
FENCE_FACTOR = 1.0  # points beyond the quartiles by more than this many interquartile ranges are stray
UNLABELLED = 0  # an id that stands for no object


class HullRule(enum.Enum):
    """What the convex hull of an object adds to its selection."""

    NONE = "none"
    SPARE = "spare"  # everything inside but other objects' confident Gaussians
    ALL = "all"  # everything inside


@torch.no_grad()
def classify(
    identity: Tensor, classifier: nn.Conv2d, selected: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax of the selected ids, most probable id and its softmax, of every Gaussian.

    Returns:
        (N, len(selected)), (N,) int64 and (N,).
    """
    weight = classifier.weight.flatten(1)  # (C, 16)
    rows = []
    for chunk in identity.flatten(1).split(CHUNK):
        probabilities = nn.functional.linear(chunk, weight, classifier.bias).softmax(1)  # (P, C)
        best, winner = probabilities.max(1)
        rows.append((probabilities[:, list(selected)], winner, best))
    chosen, winners, confidence = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return chosen, winners, confidence


def count_ids(identity: Tensor, classifier: nn.Conv2d) -> dict[int, int]:
    """Gaussians per most probable id, of the ids that occur; identity (N, 1, 16)."""
    counts = identity_of_gaussians(classifier, identity).bincount()
    return {int(chosen): int(counts[chosen]) for chosen in counts.nonzero().flatten()}


def select_objects(
    points: Tensor,
    identity: Tensor,
    classifier: nn.Conv2d,
    selected: Sequence[int],
    threshold: float,
    hull: HullRule = HullRule.SPARE,
) -> tuple[Tensor, dict[str, int]]:
    """Selects the Gaussians of the given ids.

    Args:
        points: centres (N, 3).
        identity: encodings (N, 1, 16).

    Returns:
        the selection (N,) bool, and how many Gaussians the threshold and the hulls brought in
        (`by_threshold`, `by_hull`, and `flat` = ids whose points span no volume and have no hull).
    """
    probabilities, winners, confidence = classify(identity, classifier, selected)
    by_id = probabilities > threshold  # (N, S)
    by_threshold = by_id.any(1)
    total, flat = by_threshold.clone(), 0
    if hull is not HullRule.NONE:
        for column in range(len(selected)):
            inside = inside_hull(points, by_id[:, column])
            flat += int(inside is None)
            if inside is not None:
                total |= inside
    if hull is HullRule.SPARE:
        total &= by_threshold | ~_others(winners, confidence, selected)
    before = int(by_threshold.sum())
    return total, {"by_threshold": before, "by_hull": int(total.sum()) - before, "flat": flat}


def _others(winners: Tensor, confidence: Tensor, selected: Sequence[int]) -> Tensor:
    """Gaussians that confidently belong to an object that is not selected."""
    own = torch.tensor([UNLABELLED, *selected], device=winners.device)
    return ~torch.isin(winners, own) & (confidence > CONFIDENT)


def inside_hull(points: Tensor, members: Tensor) -> Tensor | None:
    """Which points (N, 3) lie in the convex hull of the members (N,) bool, strays left out.

    None where the remaining members span no volume (fewer than four, or all in one plane).
    """
    everything = points.detach().cpu().double().numpy()
    core = without_strays(everything[members.cpu().numpy()])
    if len(core) < 4:
        return None
    try:
        planes = ConvexHull(core).equations  # (F, 4): outward normal and offset
    except QhullError:
        return None
    inside = np.all((everything >= core.min(0)) & (everything <= core.max(0)), axis=1)
    candidates = np.flatnonzero(inside)
    tolerance = 1e-9 * float(np.ptp(core, axis=0).max())  # the hull's own vertices are inside
    for chunk in np.array_split(candidates, max(1, len(candidates) // CHUNK)):
        heights = everything[chunk] @ planes[:, :3].T + planes[:, 3]  # (P, F)
        inside[chunk] = (heights <= tolerance).all(1)
    return torch.from_numpy(inside).to(points.device)


def without_strays(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points (N, 3) within the quartiles widened by `FENCE_FACTOR` interquartile ranges on every axis."""
    if not len(points):
        return points
    low, high = np.percentile(points, [25, 75], axis=0)
    reach = FENCE_FACTOR * (high - low)
    return points[np.all((points >= low - reach) & (points <= high + reach), axis=1)]
