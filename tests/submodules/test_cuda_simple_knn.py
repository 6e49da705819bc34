"""simple_knn on a GPU against its CPU part, bit for bit: in the shim, and on a device where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from simple_knn import cuda, directional_knn, distCUDA2, knn
from simple_knn.availability import cuda_problem
from torch import Tensor

from tests.cuda_shim import build

CSRC = Path(__file__).parents[2] / "submodules/simple-knn/csrc"


@pytest.fixture(params=["shim", pytest.param("device", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where to put the tensors of `cuda`'s functions; under "shim" the kernels run on the CPU, checked."""
    if request.param == "device":
        if (problem := cuda_problem()) is not None:
            pytest.skip(problem)
        yield "cuda"
        return
    sources = [CSRC / "cuda/bindings.cpp", CSRC / "cuda/tree.cu", CSRC / "cuda/directional.cu"]
    shim = build.extension("_cuda", sources, include=[CSRC])
    monkeypatch.setattr(cuda, "_cuda", shim.module)
    monkeypatch.setattr(cuda, "_use", lambda device: nullcontext())
    monkeypatch.setattr(cuda, "_stream", lambda device: 0)
    with shim.watch(order=3):
        yield "cpu"


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def clustered(count: int) -> Tensor:
    """Tight clusters far apart: boxes of very different sizes."""
    return 1000 * normal(8).repeat_interleave(count // 8 + 1, 0)[:count] + normal(count, 1)


def duplicated(count: int) -> Tensor:
    """Four places many times each: every search is decided by the ties."""
    return normal(4).repeat(count // 4 + 1, 1)[:count]


def grid(count: int) -> Tensor:
    """Equal distances and equal projections everywhere; flat, so that one axis has no extent."""
    side = int(count**0.5) + 1
    return torch.cartesian_prod(torch.arange(float(side)), torch.arange(float(side)), torch.zeros(1))[:count]


SETS: list[Callable[[int], Tensor]] = [normal, clustered, duplicated, grid]
SIZES = [1, 2, 31, 33, 1100]  # one leaf, two, two levels


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a.cpu(), e)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("make", SETS)
def test_mean_squared_distance(make: Callable[[int], Tensor], count: int, device: str) -> None:
    points = make(count)
    assert_same((cuda.mean_squared_distance(points.to(device)),), (distCUDA2(points),))


@pytest.mark.parametrize(
    ("count", "k"), [(1, 1), (20, 32), (33, 5), (1100, 5), (1100, 33), (600, 100), (700, 512)]
)
@pytest.mark.parametrize("make", SETS)
def test_nearest(make: Callable[[int], Tensor], count: int, k: int, device: str) -> None:
    points = make(count)
    queries = torch.cat([points[:7], normal(4, 2), 100 * normal(2, 3)])[-4 if k > 100 else 0 :]
    exclude = torch.arange(len(queries)).clamp_max(count) - 1  # the first excludes nothing
    for excluded in (None, exclude):
        actual = cuda.nearest(
            points.to(device), queries.to(device), k, None if excluded is None else excluded.to(device)
        )
        assert_same(actual, knn(points, queries, k, excluded))


@pytest.mark.parametrize(("count", "k"), [(1, 1), (20, 32), (33, 5), (5000, 5), (2100, 40), (700, 512)])
@pytest.mark.parametrize("make", SETS)
def test_directional_nearest(make: Callable[[int], Tensor], count: int, k: int, device: str) -> None:
    points = make(count)
    origins = torch.arange(0, count, max(1, count // (9 if k < 100 else 3)))
    directions = torch.nn.functional.normalize(normal(len(origins), 4), dim=1)
    directions[0] = 0  # nothing lies ahead
    directions[-1] = torch.tensor([1.0, 0.0, 0.0])
    actual = cuda.directional_nearest(points.to(device), origins.to(device), directions.to(device), k)
    assert_same(actual, directional_knn(points, origins, directions, k))


def test_distances_that_overflow(device: str) -> None:
    points = 1e25 * normal(50)
    assert_same(cuda.nearest(points.to(device), points.to(device), 3, None), knn(points, points, 3))


def test_four_levels(device: str) -> None:
    points = normal(33_000)
    queries = points[:40].contiguous()
    assert_same(cuda.nearest(points.to(device), queries.to(device), 5, None), knn(points, queries, 5))


def test_nothing_to_search(device: str) -> None:
    none, some = torch.zeros(0, 3, device=device), normal(3).to(device)
    assert cuda.mean_squared_distance(none).shape == (0,)
    for actual in (cuda.nearest(none, some, 2, None), cuda.nearest(some, none, 2, None)):
        assert [len(a) for a in actual] == [len(some)] * 2 or all(a.shape == (0, 2) for a in actual)
        assert bool((actual[0] == -1).all() and actual[1].isinf().all())
    no_origins = torch.zeros(0, dtype=torch.int64, device=device)
    assert cuda.directional_nearest(some, no_origins, none, 2)[0].shape == (0, 2)


@pytest.mark.gpu
def test_dispatch_by_device() -> None:
    if (problem := cuda_problem()) is not None:
        pytest.skip(problem)
    points = normal(300)
    origins = torch.arange(20)
    on_device = knn(points.cuda(), points[:20].cuda(), 4, exclude=origins.cuda())
    assert all(tensor.is_cuda for tensor in on_device)
    assert_same(on_device, knn(points, points[:20], 4, exclude=origins))
