"""Do ids mean the same object in every view? The sparse points tell: each is one place, seen in many views.

A point counts as visible where no other is much nearer within a small cell of the image. (The tracks of the
model hold fewer sightings: with them 10 of 18 switched masks of a scene were found, where this finds all.)
`votes` (N, K) counts in how many views point n carries the k-th id; 0 (unlabelled) does not vote.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scene.views import CameraInfo

POINTS_PER_CELL = 4  # of the depth test, on average: fewer let hidden points through, more lose slanted ones
DEPTH_TOLERANCE = 1.05  # times the nearest depth in the cell: the points of one surface
ABSENT = 0.2  # of its median area: an object with less is missing from a view
SWITCH_SHARE = 0.5  # of the votes of other views for one other id
SWITCH_POINTS = 3  # votes from fewer points are chance


@dataclass(frozen=True)
class Sighting:
    """The points that a view sees and the ids of its mask there."""

    points: np.ndarray  # (M,) rows of the point cloud
    ids: np.ndarray  # (M,)


@dataclass(frozen=True)
class Switch:
    """In `views` the id `id` lies where other views have `other`, which is missing there."""

    id: int
    other: int
    views: list[str]


def visible_points(view: CameraInfo, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (M,) of `points` (N,3) that the view sees, and where: x, y (M,) as parts of width and height."""
    camera = points @ view.R + view.T  # (N, 3)
    depth = camera[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (view.fx * camera[:, 0] / depth + view.cx) / view.width
        y = (view.fy * camera[:, 1] / depth + view.cy) / view.height
    rows = np.flatnonzero((depth > 0) & (x >= 0) & (x < 1) & (y >= 0) & (y < 1))
    x, y, depth = x[rows], y[rows], depth[rows]
    cells = math.ceil(math.sqrt(len(rows) / POINTS_PER_CELL))  # along each edge
    index = (y * cells).astype(int) * cells + (x * cells).astype(int)
    nearest = np.full(index.max(initial=0) + 1, np.inf)
    np.minimum.at(nearest, index, depth)
    seen = depth < DEPTH_TOLERANCE * nearest[index]
    return rows[seen], x[seen], y[seen]


def see(view: CameraInfo, points: np.ndarray, id_map: np.ndarray) -> Sighting:
    """What the view sees of `points` in its id map (H,W) of any size."""
    rows, x, y = visible_points(view, points)
    height, width = id_map.shape
    return Sighting(rows, id_map[(y * height).astype(int), (x * width).astype(int)])


def agreement(sightings: Sequence[Sighting]) -> float | None:
    """How far the views agree on ids, chance taken out (Cohen's kappa): 1 = always, 0 = as random ids would.

    None without points that two views see.
    """
    votes, labels = count_votes(sightings)
    rows = np.concatenate([sighting.points[sighting.ids > 0] for sighting in sightings])
    columns = np.searchsorted(labels, np.concatenate([s.ids[s.ids > 0] for s in sightings]))
    others = votes.sum(axis=1)[rows] - 1
    if not (others > 0).any():
        return None
    agree = ((votes[rows, columns] - 1) / np.maximum(others, 1))[others > 0].mean()
    chance = ((votes.sum(axis=0) / votes.sum()) ** 2).sum()
    return float((agree - chance) / (1 - chance)) if chance < 1 else 1.0


def find_switches(sightings: Mapping[str, Sighting], areas: Mapping[str, Mapping[int, int]]) -> list[Switch]:
    """Ids that probably changed in some views; `areas` are the pixels of every id by view.

    An id of a view is suspected where most of its points carry ONE other id in the other views, and that one
    is missing from the view. (If it is there, the one merely lies before the other.)
    """
    votes, labels = count_votes(list(sightings.values()))
    median = {
        int(label): np.median([area[label] for area in areas.values() if label in area]) for label in labels
    }
    views: dict[tuple[int, int], list[str]] = {}
    points: dict[tuple[int, int], int] = {}
    for name, sighting in sightings.items():
        for label in np.unique(sighting.ids[sighting.ids > 0]).tolist():
            rows = sighting.points[sighting.ids == label]
            share, other, voting = _opinion(votes[rows], labels, label)
            if share > SWITCH_SHARE and areas[name].get(other, 0) < ABSENT * median[other]:
                views.setdefault((label, other), []).append(name)
                points[label, other] = points.get((label, other), 0) + voting
    return [Switch(*pair, views[pair]) for pair in sorted(views) if points[pair] >= SWITCH_POINTS]


def count_votes(sightings: Sequence[Sighting]) -> tuple[np.ndarray, np.ndarray]:
    """`votes` (N,K) up to the last point seen, and the ids (K,) of its columns, ascending."""
    rows = np.concatenate([sighting.points for sighting in sightings])
    ids = np.concatenate([sighting.ids for sighting in sightings])
    rows, ids = rows[ids > 0], ids[ids > 0]
    labels, columns = np.unique(ids, return_inverse=True)
    votes = np.zeros((rows.max(initial=-1) + 1, len(labels)), dtype=np.int32)
    np.add.at(votes, (rows, columns), 1)
    return votes, labels


def _opinion(votes: np.ndarray, labels: np.ndarray, label: int) -> tuple[float, int, int]:
    """What OTHER views say of points that carry `label` here: largest share, its id, points that vote."""
    column = int(np.searchsorted(labels, label))
    others = votes.astype(float)
    others[:, column] -= 1
    others = others[others.sum(axis=1) > 0]
    if not len(others):
        return 0.0, label, 0
    share = (others / others.sum(axis=1, keepdims=True)).mean(axis=0)
    best = int(share.argmax())
    return float(share[best]) if best != column else 0.0, int(labels[best]), len(others)
