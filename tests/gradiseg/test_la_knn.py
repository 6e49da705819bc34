"""gradiseg.la_knn: neighbours against naive loops, the loss against hand computations and torch's kl_div."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradiseg.la_knn import adaptive_neighbours, global_neighbours, neighbour_kl, sample_gaussians

K = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def points() -> Tensor:
    return torch.randn(150, 3, generator=generator(1))


@pytest.fixture
def position_gradient() -> Tensor:
    return torch.randn(150, 3, generator=generator(2)) * 1e-6


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def nearest_others(points: Tensor, i: int, allowed: list[int]) -> list[int]:
    return sorted((j for j in allowed if j != i), key=lambda j: (float((points[j] - points[i]).norm()), j))


def naive_adaptive(
    points: Tensor, sample: Tensor, gradient: Tensor, candidates: int | str, allowed: list[int]
) -> list[list[int]]:
    rows = []
    for i in sample.tolist():
        euclidean = nearest_others(points, i, allowed)
        direction = -gradient[i] / gradient[i].norm()
        pool = euclidean if isinstance(candidates, str) else euclidean[:candidates]
        projections = {j: float((points[j] - points[i]) @ direction) for j in pool}
        ahead = sorted((j for j in pool if projections[j] > 0), key=lambda j: projections[j])
        rows.append((ahead if len(ahead) >= K else euclidean)[:K])
    return rows


def random_problem(dtype: torch.dtype = torch.float32, classes: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """obj_dc (40, 1, 16), weight (classes, 16), bias (classes,), all requiring gradients."""
    draw = generator(3)
    shapes = [(40, 1, 16), (classes, 16), (classes,)]
    obj_dc, weight, bias = (
        torch.randn(shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes
    )
    return obj_dc, weight, bias


def test_the_sample_is_drawn_without_replacement():
    sample, pool = sample_gaussians(50, 20, 100, generator())
    assert pool is None and sample.dtype == torch.int64
    assert len(sample.unique()) == 20 and sample.min() >= 0 and sample.max() < 50
    assert torch.equal(sample, sample_gaussians(50, 20, 100, generator())[0])
    assert len(sample_gaussians(7, 20, 100, generator())[0]) == 7


def test_beyond_max_points_sample_and_search_share_a_pool():
    sample, pool = sample_gaussians(500, 20, 60, generator())
    assert pool is not None and len(pool.unique()) == 60
    assert len(sample.unique()) == 20 and torch.isin(sample, pool).all()
    assert sample_gaussians(60, 20, 60, generator())[1] is None


@pytest.mark.parametrize("max_points", [1000, 80])
def test_global_neighbours_equal_a_naive_loop(points, max_points):
    sample, pool = sample_gaussians(len(points), 30, max_points, generator())
    allowed = list(range(len(points))) if pool is None else pool.tolist()
    expected = [nearest_others(points, i, allowed)[:K] for i in sample.tolist()]
    assert global_neighbours(points, sample, K, pool).tolist() == expected


@pytest.mark.parametrize("candidates", ["all", 8, 30])
@pytest.mark.parametrize("max_points", [1000, 80])
def test_adaptive_neighbours_equal_a_naive_loop(points, position_gradient, candidates, max_points):
    sample, pool = sample_gaussians(len(points), 60, max_points, generator())
    allowed = list(range(len(points))) if pool is None else pool.tolist()
    expected = naive_adaptive(points, sample, position_gradient, candidates, allowed)
    assert adaptive_neighbours(points, sample, position_gradient, K, candidates, pool).tolist() == expected
    assert expected != global_neighbours(points, sample, K, pool).tolist()


def test_a_full_pool_is_the_literal_definition(points, position_gradient):
    sample = torch.arange(len(points))
    everyone = adaptive_neighbours(points, sample, position_gradient, K, len(points) - 1)
    assert torch.equal(everyone, adaptive_neighbours(points, sample, position_gradient, K, "all"))


@pytest.mark.parametrize("candidates", ["all", 20])
def test_only_the_direction_of_the_gradient_matters(points, position_gradient, candidates):
    sample = torch.arange(40)
    expected = adaptive_neighbours(points, sample, position_gradient, K, candidates)
    for factor in (2.0**40, 2.0**-100):  # the squares of the latter underflow
        assert torch.equal(
            adaptive_neighbours(points, sample, position_gradient * factor, K, candidates), expected
        )


@pytest.mark.parametrize("candidates", ["all", 20])
def test_rows_fall_back_to_euclidean_neighbours(points, position_gradient, candidates):
    points[3] = torch.tensor([50.0, 0.0, 0.0])  # nothing is ahead of it towards +x
    position_gradient[3] = torch.tensor([-1.0, 0.0, 0.0])
    position_gradient[4] = 0.0
    position_gradient[5, 1] = float("nan")
    position_gradient[6, 2] = float("inf")
    sample = torch.arange(3, 40)
    adaptive = adaptive_neighbours(points, sample, position_gradient, K, candidates)
    euclidean = global_neighbours(points, sample, K)
    assert torch.equal(adaptive[:4], euclidean[:4])
    regular = sample[4:]
    expected = naive_adaptive(points, regular, position_gradient, candidates, list(range(len(points))))
    assert adaptive[4:].tolist() == expected


@pytest.mark.parametrize("candidates", ["all", 20])
def test_fewer_gaussians_than_neighbours(points, position_gradient, candidates):
    sample = torch.arange(3)
    rows = adaptive_neighbours(points[:3], sample, position_gradient[:3], K, candidates)
    assert torch.equal(rows, global_neighbours(points[:3], sample, K))
    assert torch.equal((rows >= 0).sum(1), torch.full((3,), 2))


def test_fewer_candidates_than_neighbours_are_refused(points, position_gradient):
    with pytest.raises(ValueError, match="candidates"):
        adaptive_neighbours(points, torch.arange(3), position_gradient, K, K - 1)


def test_kl_of_three_gaussians_by_hand():
    """Two classes whose logits are the first two channels: F = (p, 1 - p) with log-odds e_0."""
    odds = {0: 1 / 2, 1: 1 / 4, 2: 4 / 5}
    obj_dc = torch.zeros(3, 1, 16, dtype=torch.float64)
    for i, p in odds.items():
        obj_dc[i, 0, 0] = math.log(p / (1 - p))
    weight = torch.eye(2, 16, dtype=torch.float64)

    def kl(p: float, q: float) -> float:
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    sample, neighbours = torch.tensor([0, 1]), torch.tensor([[1, 2], [0, -1]])
    expected = (kl(0.5, 0.25) + kl(0.5, 0.8) + kl(0.25, 0.5)) / 3
    bias = torch.zeros(2, dtype=torch.float64)
    assert neighbour_kl(obj_dc, weight, bias, sample, neighbours).item() == pytest.approx(expected, rel=1e-12)
    normalised = neighbour_kl(obj_dc, weight, bias, sample, neighbours, normalize_by=2)
    assert normalised.item() == pytest.approx(expected / 2, rel=1e-12)


def test_kl_equals_torch_kl_div():
    obj_dc, weight, bias = random_problem(torch.float64)
    sample = torch.arange(10)
    neighbours = torch.randint(40, (10, K), generator=generator(4))
    log_f = torch.log_softmax(obj_dc.squeeze(1) @ weight.T + bias, -1)
    expected = torch.nn.functional.kl_div(
        log_f[neighbours], log_f[sample][:, None].expand(10, K, -1), reduction="sum", log_target=True
    )
    loss = neighbour_kl(obj_dc, weight, bias, sample, neighbours)
    assert torch.allclose(loss, expected / (10 * K), rtol=1e-12)
    assert torch.equal(loss, neighbour_kl(obj_dc.squeeze(1), weight, bias, sample, neighbours))
    tensors = (obj_dc, weight, bias)
    gradients = torch.autograd.grad(loss, tensors)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected / (10 * K), tensors), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_kl_is_positive_and_zero_where_all_agree():
    obj_dc, weight, bias = random_problem()
    sample, neighbours = torch.arange(10), torch.randint(10, 40, (10, K), generator=generator(5))
    assert neighbour_kl(obj_dc, weight, bias, sample, neighbours) > 0
    agreeing = obj_dc[:1].expand_as(obj_dc)
    assert neighbour_kl(agreeing, weight, bias, sample, neighbours) == 0


def test_kl_of_certain_and_opposite_gaussians_is_finite():
    """Where a softmax underflows Gaussian Grouping's epsilon takes over; the logarithmic form stays exact."""
    obj_dc = torch.zeros(2, 1, 16)
    obj_dc[0, 0, 0], obj_dc[1, 0, 1] = 500.0, 500.0
    obj_dc.requires_grad_()
    loss = neighbour_kl(obj_dc, torch.eye(2, 16), torch.zeros(2), torch.tensor([0]), torch.tensor([[1]]))
    loss.backward()
    assert loss.item() == pytest.approx(500.0)
    assert obj_dc.grad.isfinite().all() and obj_dc.grad.abs().sum() > 0


def test_gradcheck():
    obj_dc, weight, bias = random_problem(torch.float64, classes=3)
    sample = torch.tensor([0, 5, 7])
    neighbours = torch.tensor([[1, 5], [7, 0], [2, -1]])
    tensors = (obj_dc[:8].detach().requires_grad_(), weight, bias)
    assert torch.autograd.gradcheck(lambda *args: neighbour_kl(*args, sample, neighbours, 3), tensors)


def test_gaussians_that_take_no_part_get_no_gradient():
    obj_dc, weight, bias = random_problem()
    sample, neighbours = torch.tensor([2, 9]), torch.tensor([[4, 9], [30, -1]])
    neighbour_kl(obj_dc, weight, bias, sample, neighbours).backward()
    touched = obj_dc.grad.flatten(1).abs().sum(1).nonzero().flatten().tolist()
    assert touched == [2, 4, 9, 30]


def test_without_any_neighbour_the_loss_is_zero():
    obj_dc, weight, bias = random_problem()
    loss = neighbour_kl(obj_dc, weight, bias, torch.tensor([0]), torch.full((1, K), -1))
    loss.backward()
    assert loss == 0 and not obj_dc.grad.any() and not weight.grad.any()


@pytest.mark.parametrize("classes", [12, 256])
def test_bits_do_not_depend_on_the_threads(threads, classes):
    """Enough rows, many of them shared, for torch to split its sums among threads if it is allowed to."""
    draw = generator(6)
    obj_dc = torch.randn(2000, 1, 16, generator=draw, requires_grad=True)
    weight = torch.randn(classes, 16, generator=draw, requires_grad=True)
    bias = torch.randn(classes, generator=draw, requires_grad=True)
    sample, _ = sample_gaussians(2000, 1000, 10_000, draw)
    neighbours = torch.randint(2000, (1000, K), generator=draw)

    def everything() -> list[Tensor]:
        loss = neighbour_kl(obj_dc, weight, bias, sample, neighbours)
        return [loss.detach(), *torch.autograd.grad(loss, (obj_dc, weight, bias))]

    threads(1)
    expected = everything()
    for count in (2, 3):
        threads(count)
        assert all(torch.equal(a, b) for a, b in zip(expected, everything(), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_repeats_the_bits_where_gaussians_are_neighbours_of_many():
    obj_dc, weight, bias = (tensor.cuda() for tensor in random_problem())
    sample = torch.arange(len(obj_dc), device="cuda").repeat(20)
    neighbours = torch.arange(K, device="cuda").expand(len(sample), -1)
    gradients = []
    for _ in range(5):
        table = obj_dc.clone().requires_grad_()
        neighbour_kl(table, weight, bias, sample, neighbours).backward()
        gradients.append(table.grad)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
