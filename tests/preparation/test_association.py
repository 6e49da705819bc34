"""Association: what one view says does not matter, what many say does."""

import dataclasses

import numpy as np
import pytest

from preparation import association
from preparation.association import SegmentedView, associate, cluster

SIZE, FOCAL, DEPTH = 48, 40.0, 4.0
CENTRES = ((-1.2, -1.2), (0.9, -0.9), (-0.3, 1.1))  # of square tiles that face the cameras
HALF = 0.55


def tile_views(
    shifts: list[float], tracks: int, labels: np.ndarray | None = None, seed: int = 0
) -> tuple[list[SegmentedView], np.ndarray, np.ndarray]:
    """Views of three tiles before a wall by cameras shifted in x, nodes of each in an order of its own.

    `tracks` points per tile and more on the wall. Returns views, and view and surface (0 = wall) per node.
    `labels` (V,4) merges surfaces: the segment of surface s in view v is that of labels[v, s].
    """
    generator = np.random.default_rng(seed)
    offsets = generator.uniform(-HALF, HALF, (len(CENTRES), tracks, 2))
    tiles = (np.array(CENTRES)[:, None] + offsets).reshape(-1, 2)
    wall = generator.uniform(-2.2, 2.2, (4 * tracks, 2))
    wall = wall[surface_at(wall) == 0][: 2 * tracks]
    positions = np.column_stack([np.concatenate([tiles, wall]), np.full(len(tiles) + len(wall), DEPTH)])
    rows, columns = np.indices((SIZE, SIZE)) + 0.5
    views = []
    view_of: list[int] = []
    surface_of: list[int] = []
    for v, shift in enumerate(shifts):
        world = np.stack(
            [(columns - SIZE / 2) / FOCAL * DEPTH + shift, (rows - SIZE / 2) / FOCAL * DEPTH], -1
        )
        surface = surface_at(world.reshape(-1, 2)).reshape(SIZE, SIZE)
        if labels is not None:
            surface = labels[v][surface]
        seen = np.unique(surface[surface >= 0])
        order = generator.permutation(len(seen))
        nodes = np.full((SIZE, SIZE), -1)
        for place, which in enumerate(seen[order]):
            nodes[surface == which] = len(view_of) + place
        view_of += [v] * len(seen)
        surface_of += seen[order].tolist()
        xy = FOCAL * (positions[:, :2] - (shift, 0.0)) / DEPTH + SIZE / 2
        inside = ((xy >= 0) & (xy < SIZE)).all(axis=1)
        views.append(
            SegmentedView(
                nodes.astype(np.int32),
                (FOCAL, FOCAL, SIZE / 2, SIZE / 2),
                np.eye(3),
                np.array([-shift, 0.0, 0.0]),
                xy[inside],
                np.flatnonzero(inside),
                positions[inside],
            )
        )
    return views, np.array(view_of), np.array(surface_of)


def surface_at(xy: np.ndarray) -> np.ndarray:
    """Surface (K,) at points (K,2) of the plane: a tile from 1, or the wall."""
    inside = [(np.abs(xy - centre) <= HALF).all(axis=1) for centre in CENTRES]
    return np.select(inside, range(1, len(CENTRES) + 1), 0)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two labellings split the nodes in the same way."""
    pairs = np.unique(np.stack([a, b]), axis=1)
    return len(np.unique(a)) == len(np.unique(b)) == pairs.shape[1]


SHIFTS = [-0.4, -0.2, 0.0, 0.2, 0.4, 0.6]


def test_shuffled_ids_are_recovered() -> None:
    views, _, surface = tile_views(SHIFTS, tracks=12)
    assert same(associate(views, len(surface)), surface)


def test_the_order_of_views_and_points_does_not_matter() -> None:
    views, _, surface = tile_views(SHIFTS, tracks=12)
    found = associate(views[::-1], len(surface))
    assert same(found, surface)


def test_tiles_without_any_track_are_joined_by_virtual_points(monkeypatch: pytest.MonkeyPatch) -> None:
    views, _, surface = tile_views(SHIFTS, tracks=12)
    for index, view in enumerate(views):  # what lies on tile 2 is lost
        kept = surface[view.nodes_at(view.xy)] != 2
        views[index] = SegmentedView(
            view.nodes,
            view.intrinsics,
            view.rotation,
            view.translation,
            view.xy[kept],
            view.points[kept],
            view.positions[kept],
        )
    assert same(associate(views, len(surface)), surface)
    monkeypatch.setattr(association, "SAMPLES", 0)
    monkeypatch.setattr(association, "SAMPLES_PER_VIEW", 0)
    assert len(np.unique(associate(views, len(surface))[surface == 2])) == len(SHIFTS)


def test_an_object_dropped_in_some_views_keeps_its_id() -> None:
    labels = np.tile(np.arange(4), (len(SHIFTS), 1))
    labels[1:4, 3] = -1
    views, _, surface = tile_views(SHIFTS, tracks=12, labels=labels)
    assert same(associate(views, len(surface)), surface)


def test_one_wrong_view_is_outvoted() -> None:
    labels = np.tile(np.arange(4), (len(SHIFTS), 1))
    labels[2, 2] = 0  # in one view, tile 2 was painted over by the wall
    views, _, surface = tile_views(SHIFTS, tracks=12, labels=labels)
    assert same(associate(views, len(surface)), surface)


def test_a_plain_surface_is_one_although_its_keypoints_lie_on_its_border(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every keypoint of the wall lies where the tiles' blurred outlines are, in a segment of its own."""
    views, _, surface = tile_views(SHIFTS, tracks=12)
    nodes, rims = len(surface), len(surface)
    for index, view in enumerate(views):
        wall = surface[view.nodes_at(view.xy)] == 0
        apart = view.nodes.copy()
        if index % 2:  # every other view has them in another segment than the wall
            column, row = view.xy[wall].astype(int).T
            apart[row, column] = rims
            rims += 1
        views[index] = dataclasses.replace(view, nodes=apart)
    walls = np.flatnonzero(surface == 0)
    assert len(np.unique(associate(views, rims)[walls])) == 1
    monkeypatch.setattr(association, "SAMPLES", 0)
    monkeypatch.setattr(association, "SAMPLES_PER_VIEW", 0)
    assert len(np.unique(associate(views, rims)[:nodes][walls])) > 1


def test_samples_are_spread_by_area_and_small_segments_have_some() -> None:
    nodes = np.zeros((100, 100), np.int32)
    nodes[:50] = 1
    nodes[0, :7] = 2
    xy, found = association._sample_segments(nodes, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(found), [500, 500, 7])
    assert len(np.unique(xy, axis=0)) == len(xy)


def test_lookups_reach_from_the_nearest_view_to_the_farthest() -> None:
    shared = np.arange(100)[::-1]
    chosen = association._near_and_far(shared)
    assert len(chosen) == association.LOOKUPS and {0, 98} <= set(chosen) and 99 not in chosen
    assert set(association._near_and_far(np.array([0, 5, 3]))) == {1, 2}
    assert len(association._near_and_far(np.zeros(4))) == 0


def test_views_that_share_nothing_stay_apart() -> None:
    near, _, surface_near = tile_views(SHIFTS[:2], tracks=12)
    far, _, surface_far = tile_views(SHIFTS[:2], tracks=12)
    moved = [
        SegmentedView(
            np.where(view.nodes >= 0, view.nodes + len(surface_near), -1),
            view.intrinsics,
            view.rotation,
            view.translation,
            view.xy,
            view.points + 1000,
            view.positions,
        )
        for view in far
    ]
    found = associate([*near, *moved], len(surface_near) + len(surface_far))
    assert set(found[: len(surface_near)]).isdisjoint(found[len(surface_near) :])


def test_agreement_is_the_documented_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes with 3 points in common of 4 and 6 that the other's view labels: 3 / sqrt(4 6) = 0.612."""
    votes = [(p, 0, 0) for p in range(4)] + [(p, 1, 1) for p in range(1, 7)]
    votes += [(0, 1, 2), (4, 0, 3), (5, 0, 4), (6, 0, 5)]  # the other points are in specks of one each
    monkeypatch.setattr(association, "MIN_EVIDENCE", 2.0)
    for threshold, joined in ((0.61, True), (0.62, False)):
        monkeypatch.setattr(association, "MIN_AGREEMENT", threshold)
        found = cluster(np.array(votes), 6, 2)
        assert (found[0] == found[1]) == joined


def test_without_any_vote_every_node_is_alone() -> None:
    found = cluster(np.empty((0, 3), np.int64), 5, 2)
    assert len(set(found)) == 5


def test_depth_comes_from_the_own_segment_where_it_holds_a_point() -> None:
    nodes = np.zeros((4, 8), np.int32)
    nodes[:, 4:] = 1
    positions = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 9.0]])
    view = SegmentedView(
        nodes,
        (1.0, 1.0, 0.0, 0.0),
        np.eye(3),
        np.zeros(3),
        np.array([[3.5, 2.0], [7.5, 2.0]]),
        np.arange(2),
        positions,
    )
    depth = association.DepthLookup(view)
    np.testing.assert_allclose(depth(np.array([[4.1, 2.0]]), np.array([1])), [9.0])
    np.testing.assert_allclose(depth(np.array([[3.5, 2.0]]), np.array([0])), [2.0])
    (mixed,) = depth(np.array([[5.0, 2.0]]), np.array([7]))  # a segment without points
    assert 2.0 < mixed < 9.0
