"""simple_knn against naive loops, scipy, and what must hold for any exact search."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial import cKDTree
from simple_knn import MAX_NEIGHBOURS, PointTree, directional_knn, knn
from simple_knn._C import distCUDA2
from torch import Tensor


def random_points(count: int = 400) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1))


def clustered_points() -> Tensor:
    """Tight clusters far apart: boxes of very different sizes."""
    centres = random_points(8).repeat_interleave(50, 0) * 1000
    return centres + random_points(400)


def duplicated_points() -> Tensor:
    """Four places, a hundred times each: every search is decided by the ties."""
    return random_points(4).repeat(100, 1)


def grid_points() -> Tensor:
    """Equal distances and equal projections everywhere."""
    axis = torch.arange(7.0)
    return torch.cartesian_prod(axis, axis, axis)


def collinear_points() -> Tensor:
    return torch.arange(300.0)[:, None] * torch.tensor([1.0, 0.0, 0.0])


SETS = [random_points, clustered_points, duplicated_points, grid_points, collinear_points]


def smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest finite values of every row, ties by index; -1 and infinity where there are fewer."""
    padded = torch.cat([values, torch.full((len(values), k), torch.inf)], 1)
    ordered, indices = padded.sort(dim=1, stable=True)
    return torch.where(ordered[:, :k].isinf(), -1, indices[:, :k]), ordered[:, :k]


def naive_knn(
    points: Tensor, queries: Tensor, k: int, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    x, y, z = (points[None] - queries[:, None]).unbind(-1)  # (M, N) each
    squared_distances = x * x + y * y + z * z
    if exclude is not None:
        squared_distances[torch.arange(len(queries)), exclude] = torch.inf
    return smallest(squared_distances, k)


def naive_directional(points: Tensor, origins: Tensor, directions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    x, y, z = (points[None] - points[origins][:, None]).unbind(-1)  # (M, N) each
    u, v, w = directions[:, None].unbind(-1)  # (M, 1) each
    projections = x * u + y * v + z * w
    return smallest(torch.where(projections > 0, projections, torch.inf), k)


def directions_for(origins: Tensor) -> Tensor:
    return torch.randn(len(origins), 3, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("make_points", SETS)
@pytest.mark.parametrize("k", [1, 5, 64])
def test_knn_equals_the_naive_search(make_points, k):
    points = make_points()
    sample = torch.arange(0, len(points), 3)
    for queries, exclude in [(points[sample], None), (points[sample], sample), (random_points(50) * 3, None)]:
        indices, squared_distances = knn(points, queries, k, exclude)
        expected_indices, expected_distances = naive_knn(points, queries, k, exclude)
        assert torch.equal(indices, expected_indices)
        assert torch.equal(squared_distances, expected_distances)


@pytest.mark.parametrize("make_points", SETS)
@pytest.mark.parametrize("k", [1, 5, 64])
def test_directional_knn_equals_the_naive_search(make_points, k):
    points = make_points()
    origins = torch.arange(0, len(points), 3)
    for directions in (directions_for(origins), torch.tensor([[1.0, 0.0, 0.0]]).expand(len(origins), 3)):
        indices, projections = directional_knn(points, origins, directions, k)
        expected_indices, expected_projections = naive_directional(points, origins, directions, k)
        assert torch.equal(indices, expected_indices)
        assert torch.equal(projections, expected_projections)


@pytest.mark.parametrize("make_points", SETS)
def test_mean_squared_distance_equals_the_naive_mean(make_points):
    points = make_points()
    _, squared_distances = naive_knn(points, points, 3, torch.arange(len(points)))
    assert torch.allclose(distCUDA2(points), squared_distances.mean(1), rtol=1e-6, atol=0)


def test_the_largest_k():
    points = random_points(700)
    sample = torch.arange(20)
    directions = directions_for(sample)
    assert torch.equal(
        knn(points, points[:20], MAX_NEIGHBOURS)[0], naive_knn(points, points[:20], MAX_NEIGHBOURS)[0]
    )
    found, _ = directional_knn(points, sample, directions, MAX_NEIGHBOURS)
    assert torch.equal(found, naive_directional(points, sample, directions, MAX_NEIGHBOURS)[0])


def test_agrees_with_scipy_on_a_large_set():
    points = random_points(20_000)
    expected, _ = cKDTree(points.double().numpy()).query(points.double().numpy(), k=6)
    _, squared_distances = knn(points, points, 5, exclude=torch.arange(len(points)))
    assert torch.allclose(
        squared_distances.double().sqrt(), torch.from_numpy(expected[:, 1:]), rtol=1e-5, atol=1e-6
    )
    mean = torch.from_numpy(expected[:, 1:4] ** 2).mean(1).float()
    assert torch.allclose(distCUDA2(points), mean, rtol=1e-4)


@pytest.mark.parametrize("make_points", SETS)
@pytest.mark.parametrize("step", [0.0, 1e-3, 0.3, 100.0])
def test_a_tree_that_follows_moving_points_finds_what_a_new_one_finds(make_points, step, two_threads):
    tree, points = PointTree(), make_points()
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        exclude = torch.arange(len(points))
        indices, distances = tree.knn(points, points, 6, exclude)
        expected_indices, expected_distances = knn(points, points, 6, exclude)
        assert torch.equal(indices, expected_indices) and torch.equal(distances, expected_distances)
        points = points + step * torch.randn(points.shape, generator=generator)


def test_a_tree_follows_points_that_come_go_and_change_places():
    tree, points = PointTree(), random_points(20_000)
    for count in (20_000, 12_000, 20_000):
        shuffled = points[torch.randperm(count, generator=torch.Generator().manual_seed(count))]
        for a, b in zip(tree.knn(shuffled, points[:50], 5), knn(shuffled, points[:50], 5), strict=True):
            assert torch.equal(a, b)


def test_bits_do_not_depend_on_the_threads(two_threads):
    points = torch.cat([random_points(30_000), duplicated_points()])
    sample = torch.arange(0, len(points), 100)
    directions = directions_for(sample)

    def everything() -> list[Tensor]:
        return [
            distCUDA2(points),
            *knn(points, points[sample], 7, exclude=sample),
            *directional_knn(points, sample, directions, 7),
        ]

    parallel = everything()
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(parallel, everything(), strict=True))


def test_invariance_to_translation_scale_and_order():
    points = (random_points() * 64).round()  # integers: the transformed coordinates and distances are exact
    sample = torch.arange(len(points))
    indices, squared_distances = knn(points, points, 5, exclude=sample)
    moved_indices, moved_distances = knn(points * 4 + 128, points * 4 + 128, 5, exclude=sample)
    assert torch.equal(moved_indices, indices)
    assert torch.equal(moved_distances, squared_distances * 16)

    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(3))
    assert torch.equal(distCUDA2(points[order]), distCUDA2(points)[order])

    directions = directions_for(sample).round()
    ahead, projections = directional_knn(points, sample, directions, 5)
    moved_ahead, moved_projections = directional_knn(points * 4 + 128, sample, directions * 2, 5)
    assert torch.equal(moved_ahead, ahead)
    assert torch.equal(moved_projections, projections * 8)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_fewer_points_than_neighbours(count):
    points = random_points(count)
    sample = torch.arange(count)
    indices, squared_distances = knn(points, points, 5, exclude=sample)
    assert indices.shape == squared_distances.shape == (count, 5)
    assert torch.equal(indices[:, max(count - 1, 0) :], torch.full((count, 5 - max(count - 1, 0)), -1))
    assert squared_distances[:, max(count - 1, 0) :].isinf().all()
    assert torch.equal(indices, naive_knn(points, points, 5, sample)[0])
    assert (directional_knn(points, sample, directions_for(sample), 5)[0] != sample[:, None]).all()
    mean = distCUDA2(points)
    assert mean.shape == (count,) and mean.isfinite().all()
    assert torch.equal(mean == 0, torch.full((count,), count == 1))


def test_no_queries_and_no_direction():
    points, none = random_points(), torch.empty(0, dtype=torch.int64)
    assert knn(points, points[:0], 5)[0].shape == (0, 5)
    assert directional_knn(points, none, points[:0], 5)[0].shape == (0, 5)
    indices, projections = directional_knn(points, torch.arange(3), torch.zeros(3, 3), 5)
    assert (indices == -1).all() and projections.isinf().all()
    assert knn(points[:0], points, 2)[0].eq(-1).all()


def test_inputs_may_be_strided_and_carry_gradients():
    wide = random_points(300).repeat(1, 2).requires_grad_()
    points = wide[:, 1:4]
    assert torch.equal(knn(points, points, 3)[0], knn(points.detach().clone(), points.detach().clone(), 3)[0])
    assert not distCUDA2(points).requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_coordinates_that_are_not_finite_are_refused(value):
    points, sample = random_points(), torch.arange(4)
    broken = points.clone()
    broken[7, 1] = value
    with pytest.raises(ValueError, match="points holds NaN or infinity"):
        distCUDA2(broken)
    with pytest.raises(ValueError, match="queries holds NaN or infinity"):
        knn(points, broken, 3)
    with pytest.raises(ValueError, match="directions holds NaN or infinity"):
        directional_knn(points, sample, broken[5:9], 3)


def test_errors_name_the_argument():
    points, sample = random_points(), torch.arange(4)
    with pytest.raises(ValueError, match="points must have shape"):
        distCUDA2(points[:, :2])
    with pytest.raises(ValueError, match="points must be float32"):
        distCUDA2(points.double())
    with pytest.raises(ValueError, match="queries must be float32"):
        knn(points, points.long(), 3)
    for k in (0, -1, MAX_NEIGHBOURS + 1):
        with pytest.raises(ValueError, match="k must lie in"):
            knn(points, points, k)
    with pytest.raises(ValueError, match="exclude must have shape"):
        knn(points, points, 3, exclude=sample)
    with pytest.raises(ValueError, match="exclude must lie in"):
        knn(points, points[:1], 3, exclude=torch.tensor([len(points)]))
    with pytest.raises(ValueError, match="origins must be int64"):
        directional_knn(points, sample.int(), points[:4], 3)
    with pytest.raises(ValueError, match="origins must lie in"):
        directional_knn(points, sample - 1, points[:4], 3)
