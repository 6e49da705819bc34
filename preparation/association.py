"""Segments of single views joined into objects: which segments show the same thing, by what 3D points say.

A node is a segment of one view; nodes are numbered through all views (N). A vote (point, view, node) says
that a point of the scene lies in a node. Votes come from

- the tracks of structure from motion: a keypoint lies in the segment under it;
- virtual points: pixels sampled evenly over the view, and some in every segment, with the depth of the points
  that the segment holds, looked up in views near and far. Thin and plain things hold few keypoints or none,
  and those of a plain surface lie on its border, where they say little: with tracks alone both fell apart.

Two nodes agree on the points that both hold; they could agree on all points of either that are labelled in
the view of the other. With S (N, points) the votes as a sparse matrix, A = S S^T counts agreements and
O = S V^T, V (views, points), the occasions of each node in each view. For clusters i, j of nodes both add up:

    A_ij = sum_{a in i, b in j} A_ab,    O_ij = sum_{a in i, b in j} O_{a, view(b)}
    agreement = A_ij / sqrt(O_ij O_ji)

so a pair of views counts by how much both see, a view in which an object was dropped (unlabelled) does not
count, and one with a wrong mask is outvoted. Pairs of clusters that agree best with each other are merged
while they agree more than `MIN_AGREEMENT`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

MIN_AGREEMENT = 0.3
MIN_EVIDENCE = 3  # points that two clusters must share
SAMPLES = 24  # virtual points per segment, at least
SAMPLES_PER_VIEW = 1000  # about as many as tracks, so that area counts as much as texture
LOOKUPS = 16  # views in which they are looked up
DEPTH_POINTS = 3  # observed points that a depth is interpolated from
DEPTH_TOLERANCE = 0.1  # relative; a virtual point further off than this is hidden there
FAR = 1e6  # pixels between the points of two segments in the search for those of the same
BLOCK = 1 << 16  # pairs of clusters scored at a time


@dataclass(frozen=True)
class SegmentedView:
    """A view, its segments and the 3D points that it observes; intrinsics and `xy` in pixels of `nodes`."""

    nodes: np.ndarray  # (H, W) int32 number of the segment's node, -1 = unlabelled
    intrinsics: tuple[float, float, float, float]  # fx fy cx cy
    rotation: np.ndarray  # (3, 3) world to camera
    translation: np.ndarray  # (3,)
    xy: np.ndarray  # (M, 2) observed points; the first pixel covers [0, 1] x [0, 1]
    points: np.ndarray  # (M,) rows of the scene's points
    positions: np.ndarray  # (M, 3) of those points in the world

    def nodes_at(self, xy: np.ndarray) -> np.ndarray:
        """Nodes (K,) under pixels (K,2) inside the image."""
        column, row = xy.astype(int).T
        return self.nodes[
            np.clip(row, 0, self.nodes.shape[0] - 1), np.clip(column, 0, self.nodes.shape[1] - 1)
        ]

    def project(self, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (K,2) and depths (K,) of points (K,3); pixels mean nothing where the depth is not > 0."""
        x, y, depth = (world @ self.rotation.T + self.translation).T
        fx, fy, cx, cy = self.intrinsics
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([fx * x / depth + cx, fy * y / depth + cy], axis=1), depth

    def unproject(self, xy: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Points (K,3) in the world at pixels (K,2) and depths (K,)."""
        fx, fy, cx, cy = self.intrinsics
        local = np.stack([(xy[:, 0] - cx) / fx * depth, (xy[:, 1] - cy) / fy * depth, depth], axis=1)
        world: np.ndarray = (local - self.translation) @ self.rotation
        return world


class DepthLookup:
    """Depths of a view, interpolated between the points it observes, within a segment where possible."""

    def __init__(self, view: SegmentedView) -> None:
        self.depth = view.project(view.positions)[1]  # (M,)
        self.anywhere = cKDTree(view.xy)
        self.by_segment = cKDTree(np.c_[view.xy, FAR * view.nodes_at(view.xy)])

    def __call__(self, xy: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Depths (K,) at pixels (K,2) that belong to `nodes` (K,): by own points, else by the nearest."""
        depth, known = self._interpolate(self.by_segment, np.c_[xy, FAR * nodes])
        elsewhere, _ = self._interpolate(self.anywhere, xy)
        return np.where(known, depth, elsewhere)

    def _interpolate(self, tree: cKDTree, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance, index = tree.query(queries, k=np.arange(1, min(DEPTH_POINTS, tree.n) + 1))
        weight = np.where(distance < 0.5 * FAR, 1.0 / (distance + 1.0), 0.0)
        total = weight.sum(axis=1)
        return (weight * self.depth[index]).sum(axis=1) / np.maximum(total, 1e-12), total > 0


def associate(views: Sequence[SegmentedView], num_nodes: int, seed: int = 0) -> np.ndarray:
    """Object (N,) of every node, numbered from 0 in no particular order."""
    return cluster(collect_votes(views, seed), num_nodes, len(views))


def collect_votes(views: Sequence[SegmentedView], seed: int = 0) -> np.ndarray:
    """All votes: rows (point, view, node) int64 (K,3)."""
    tracked = [
        np.stack([view.points, np.full(len(view.points), v), view.nodes_at(view.xy)], axis=1)
        for v, view in enumerate(views)
    ]
    num_points = 1 + max((int(view.points.max(initial=-1)) for view in views), default=-1)
    votes = np.concatenate([*tracked, *_virtual_votes(views, num_points, seed), np.empty((0, 3), np.int64)])
    return votes[votes[:, 2] >= 0]


def _virtual_votes(views: Sequence[SegmentedView], num_points: int, seed: int) -> Iterator[np.ndarray]:
    """Votes of pixels sampled in every segment; their points are numbered from `num_points`."""
    generator = np.random.default_rng(seed)
    shared = _shared_points(views, num_points)
    depths = [DepthLookup(view) if len(view.points) else None for view in views]
    for v, (view, depth) in enumerate(zip(views, depths, strict=True)):
        if depth is None:
            continue
        xy, nodes = _sample_segments(view.nodes, generator)
        world = view.unproject(xy, depth(xy, nodes))
        points = num_points + np.arange(len(xy))
        num_points += len(xy)
        yield np.stack([points, np.full(len(xy), v), nodes], axis=1)
        for u in _near_and_far(shared[v]):
            seen, found = _look_up(views[u], depths[u], world)
            yield np.stack([points[seen], np.full(len(found), u), found], axis=1)


def _near_and_far(shared: np.ndarray) -> np.ndarray:
    """LOOKUPS of the views with `shared` (V,) > 0, evenly through their order, the nearest first."""
    order = np.argsort(-shared, kind="stable")[: np.count_nonzero(shared)]
    return order[np.unique(np.linspace(0, len(order) - 1, LOOKUPS).astype(int))] if len(order) else order


def _look_up(
    view: SegmentedView, depth: DepthLookup | None, world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the points (K,3) `view` sees in a segment, as indices, and the nodes of those."""
    assert depth is not None  # it shares points
    xy, expected = view.project(world)
    height, width = view.nodes.shape
    inside = np.flatnonzero((expected > 0) & (xy >= 0).all(axis=1) & (xy < (width, height)).all(axis=1))
    nodes = view.nodes_at(xy[inside])
    actual = depth(xy[inside], nodes)
    visible = (nodes >= 0) & (np.abs(actual / expected[inside] - 1.0) < DEPTH_TOLERANCE)
    return inside[visible], nodes[visible]


def _sample_segments(nodes: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres (K,2) and their nodes (K,): by area, and SAMPLES of every segment at least."""
    shuffled = generator.permutation(np.flatnonzero(nodes >= 0))
    shuffled = shuffled[np.argsort(nodes.ravel()[shuffled], kind="stable")]
    labels = nodes.ravel()[shuffled]
    first, last = (np.searchsorted(labels, labels, side) for side in ("left", "right"))
    share = SAMPLES_PER_VIEW * (last - first) / nodes.size
    kept = shuffled[np.arange(len(labels)) - first < np.maximum(SAMPLES, share)]
    row, column = np.divmod(kept, nodes.shape[1])
    return np.stack([column + 0.5, row + 0.5], axis=1), nodes.ravel()[kept].astype(np.int64)


def _shared_points(views: Sequence[SegmentedView], num_points: int) -> np.ndarray:
    """Number of points (V,V) that two views both observe, 0 on the diagonal."""
    view = np.repeat(np.arange(len(views)), [len(view.points) for view in views])
    point = np.concatenate([view.points for view in views])
    sees = sparse.csr_matrix((np.ones(len(view)), (view, point)), (len(views), num_points))
    shared: np.ndarray = (sees @ sees.T).toarray()
    np.fill_diagonal(shared, 0)
    return shared


def cluster(
    votes: np.ndarray, num_nodes: int, num_views: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Cluster (N,) of every node, by the agreement that the module's docstring defines.

    `weights` (K,) of the votes: a pair of them counts their product instead of 1.
    """
    point = np.unique(votes[:, 0], return_inverse=True)[1].ravel()
    num_points = int(point.max(initial=-1)) + 1
    weights = np.ones(len(votes)) if weights is None else weights.astype(float)
    holds = sparse.csr_matrix((weights, (votes[:, 2], point)), (num_nodes, num_points))
    labelled = sparse.csr_matrix((weights, (votes[:, 1], point)), (num_views, num_points))
    agree = holds @ holds.T  # (C, C), C clusters, at first one per node
    occasions = (holds @ labelled.T).toarray()  # (C, V)
    members = np.zeros((num_nodes, num_views))  # (C, V) nodes of a cluster in a view
    members[votes[:, 2], votes[:, 1]] = 1.0
    clusters = np.arange(num_nodes)
    while True:
        merged = _merge(agree.tocoo(), occasions, members)
        if merged is None:
            return clusters
        clusters = merged[clusters]
        into = sparse.csr_matrix((np.ones(len(merged)), (merged, np.arange(len(merged)))))
        agree, occasions, members = into @ agree @ into.T, into @ occasions, into @ members


def _merge(agree: sparse.coo_matrix, occasions: np.ndarray, members: np.ndarray) -> np.ndarray | None:
    """New number (C,) of every cluster after all best pairs are merged; None if no pair agrees enough."""
    apart = (agree.row != agree.col) & (agree.data >= MIN_EVIDENCE)
    first, second, shared = agree.row[apart], agree.col[apart], agree.data[apart]
    possible = np.empty((2, len(first)))
    for start in range(0, len(first), BLOCK):
        i, j = first[start : start + BLOCK], second[start : start + BLOCK]
        possible[0, start : start + BLOCK] = np.einsum("ev,ev->e", occasions[i], members[j])
        possible[1, start : start + BLOCK] = np.einsum("ev,ev->e", members[i], occasions[j])
    agreement = shared / np.sqrt(possible[0] * possible[1])
    enough = agreement > MIN_AGREEMENT
    if not enough.any():
        return None
    first, second, agreement = first[enough], second[enough], agreement[enough]
    own = np.arange(agree.shape[0])
    best = np.full(agree.shape[0], -1)
    order = np.lexsort((-second, np.round(agreement, 9)))  # rounding: (i, j) and (j, i) must compare equal
    best[first[order]] = second[order]  # the last one written, the best, stays
    mutual = (best >= 0) & (best[best] == own)
    if not mutual.any():  # a ring of equals
        top = order[-1]
        best[first[top]], best[second[top]] = second[top], first[top]
        mutual[[first[top], second[top]]] = True
    renumbered: np.ndarray = np.unique(np.where(mutual, np.minimum(own, best), own), return_inverse=True)[1]
    return renumbered.ravel()
