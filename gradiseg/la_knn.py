"""Local adaptive nearest neighbours and the 3D identity loss (GradiSeg, section 3.5, equations 3 and 4).

Naming: N Gaussians, M of them sampled, K neighbours each, C classes, D = 16 identity channels; p a position
(3), e an identity encoding (D), F(e) = softmax(weight e + bias). Indices are int64 rows of the N Gaussians;
where fewer than K neighbours exist an index is -1. Nothing of size (M, N) is ever built, and the classifier
sees M (K + 1) rows, never N.

Two definitions of the neighbours of p, of the same shape (M, K):
- global: the K nearest by Euclidean distance (Gaussian Grouping's; phases 1 and 2 of the schedule);
- local adaptive (equation 4): along u = -g / |g|, with g the position gradient of p, the K smallest positive
  d = (p' - p) . u. Taken over all p' a Gaussian far to the side may win with a tiny d; taken over a pool of
  the nearest by Euclidean distance the choice stays local, as the name and the paper's figure 4 have it.
Unlike Gaussian Grouping, whose search finds the sampled Gaussian as its own first neighbour, all K are other
Gaussians.
"""

from __future__ import annotations

from typing import Literal

import torch
from simple_knn import PointTree, directional_knn, knn
from torch import Tensor

from gradiseg.classifier import class_logits

Candidates = int | Literal["all"]


def sample_gaussians(
    num_gaussians: int,
    sample_size: int,
    max_points: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor | None]:
    """Draw the Gaussians of one evaluation of the loss, without replacement.

    -> sample (M,), M = min(sample_size, num_gaussians, max_points), and pool: None, or where num_gaussians >
    max_points a random subset (max_points,) that is both sampled and searched, as `reg3d_max_points` is
    defined by Gaussian Grouping. There it bounds a distance matrix; our exact search builds none, so here it
    bounds only the time of a search and may be raised freely. The draw is made where the generator is, and
    without one on `device`: a GPU that waited for the host's draw would wait longer than the loss takes.
    """
    draw_on = device if generator is None else generator.device
    order = torch.randperm(num_gaussians, generator=generator, device=draw_on).to(device)  # (N,)
    pool = order[:max_points]  # (min(N, max_points),)
    return pool[:sample_size], pool if num_gaussians > max_points else None


def global_neighbours(
    points: Tensor, sample: Tensor, k: int, pool: Tensor | None = None, tree: PointTree | None = None
) -> Tensor:
    """The k Gaussians nearest to every sampled one by Euclidean distance, itself left out.

    points (N, 3), sample (M,), pool (P,) or None for all; a pool begins with the sample, as
    `sample_gaussians` draws it; tree: the search tree of earlier calls, kept for speed only -> (M, k),
    nearest first, -1 where fewer than k others exist.
    """
    points, local_sample = _restrict(points, sample, pool)
    return _to_global(_nearest(points, local_sample, k, None if pool is not None else tree), pool)


def adaptive_neighbours(
    points: Tensor,
    sample: Tensor,
    position_gradient: Tensor,
    k: int,
    candidates: Candidates,
    pool: Tensor | None = None,
    tree: PointTree | None = None,
) -> Tensor:
    """The k Gaussians of smallest positive d = (p' - p) . u, u = -g / |g| (equation 4).

    points (N, 3), sample (M,), position_gradient (N, 3) = g, or a running mean of it, which unlike one
    iteration's gradient also holds the Gaussians that this view does not see; candidates "all" (equation 4 as
    printed) or the number of nearest Gaussians by Euclidean distance that d is sorted over, equal d nearest
    first; pool and tree as in `global_neighbours` -> (M, k).

    A sampled Gaussian whose g is zero or not finite, or that has fewer than k candidates ahead, gets its
    Euclidean neighbours instead, the whole row of them: a mixed row would be ordered by two different
    distances.

    Raises: ValueError where candidates is a number below k.
    """
    if candidates != "all" and candidates < k:
        raise ValueError(f"candidates must be 'all' or at least k = {k}, not {candidates}.")
    directions, defined = _neighbouring_directions(position_gradient[sample])  # (M, 3), (M,)
    points, local_sample = _restrict(points.detach(), sample, pool)
    if candidates == "all":
        rows = _ahead_of_all(points, local_sample, directions, defined, k)  # (M, k)
    else:
        nearest = _nearest(points, local_sample, candidates, None if pool is not None else tree)  # (M, P)
        rows = _ahead_of_nearest(points, local_sample, directions, defined, k, nearest)  # (M, k)
    return _to_global(rows, pool)


def neighbour_kl(
    obj_dc: Tensor,
    weight: Tensor,
    bias: Tensor,
    sample: Tensor,
    neighbours: Tensor,
    normalize_by: int | None = None,
) -> Tensor:
    """Mean of KL(F(e_i) || F(e_j)) over the sampled Gaussians i and their neighbours j (equation 3).

    obj_dc (N, 1, D) or (N, D), weight (C, D), bias (C,), sample (M,), neighbours (M, K) with -1 where there
    is none (left out of the mean; 0 if all are) -> scalar, differentiable with respect to obj_dc, weight and
    bias, through i and through j. Gaussian Grouping divides by the number of classes as well: `normalize_by`.

    Gaussian Grouping takes log(F + 1e-10), which cuts off the pull on pairs that disagree by more than a
    factor 1e10; the logarithm of the softmax taken in one step is exact and needs no epsilon. The gradients
    are the same bits for any number of threads.
    """
    exists = neighbours >= 0  # (M, K)
    neighbours = torch.where(exists, neighbours, sample[:, None])  # (M, K) any row will do: it weighs 0
    rows = torch.cat([sample[:, None], neighbours], 1)  # (M, K + 1)
    table, wanted = obj_dc.flatten(1), rows.flatten()
    # a row may be wanted often: backwards a GPU adds up in one order for [], a CPU for index_select
    encodings = table[wanted] if table.is_cuda else table.index_select(0, wanted)  # (M (K + 1), D)
    log_f = torch.log_softmax(class_logits(encodings, weight, bias), -1)  # (M (K + 1), C)
    log_f = log_f.unflatten(0, rows.shape)  # (M, K + 1, C)
    log_f_i, log_f_j = log_f[:, :1], log_f[:, 1:]  # (M, 1, C), (M, K, C)
    divergence = (log_f_i.exp() * (log_f_i - log_f_j)).sum(-1)  # (M, K)
    total = (divergence * exists).sum(-1).sum()  # by rows first: threads do not share a sum as short as M
    mean = total / exists.sum().clamp_min(1)
    return mean if normalize_by is None else mean / normalize_by


def _neighbouring_directions(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """u = -g / |g| (M, 3), and where it is defined (M,); zero elsewhere.

    Scaled by its largest component first: a gradient left to decay in a running mean becomes so small that
    its squares underflow, while its direction is still good.
    """
    largest = gradient.abs().amax(1, keepdim=True)  # (M, 1)
    defined = gradient.isfinite().all(1) & (largest[:, 0] > 0)  # (M,)
    scaled = torch.where(defined[:, None], gradient / largest, 0.0)  # (M, 3)
    return -torch.nn.functional.normalize(scaled, dim=1), defined


def _ahead_of_all(points: Tensor, sample: Tensor, directions: Tensor, defined: Tensor, k: int) -> Tensor:
    rows, _ = directional_knn(points, sample, directions, k)  # (M, k)
    fallback = ~defined | (rows[:, -1] < 0)  # (M,)
    if fallback.any():
        stranded = sample[fallback]
        rows[fallback] = knn(points, points[stranded], k, exclude=stranded)[0]
    return rows


def _ahead_of_nearest(
    points: Tensor, sample: Tensor, directions: Tensor, defined: Tensor, k: int, nearest: Tensor
) -> Tensor:
    offsets = points[nearest] - points[sample][:, None]  # (M, P, 3)
    projections = (offsets * directions[:, None]).sum(-1)  # (M, P)
    ahead = (projections > 0) & (nearest >= 0)  # (M, P)
    # The bits of positive floats order like integers; the candidate's rank below them settles ties.
    values = torch.where(ahead, projections, torch.inf).view(torch.int32).long()  # (M, P)
    ranks = torch.arange(nearest.shape[1], device=nearest.device)  # (P,)
    keys = (values << 32) | ranks  # (M, P)
    order = keys.topk(k, dim=1, largest=False).values & 0xFFFFFFFF  # (M, k) ascending
    chosen = defined & (ahead.sum(1) >= k)  # (M,)
    return torch.where(chosen[:, None], nearest.gather(1, order), nearest[:, :k])


def _nearest(points: Tensor, sample: Tensor, k: int, tree: PointTree | None) -> Tensor:
    """The k nearest others of `sample`, (M, k)."""
    indices, _ = (tree or PointTree()).knn(points, points[sample], k, exclude=sample)
    return indices


def _restrict(points: Tensor, sample: Tensor, pool: Tensor | None) -> tuple[Tensor, Tensor]:
    """The points to search, and the sampled ones' rows among them."""
    if pool is None:
        return points.detach(), sample
    return points.detach()[pool], torch.arange(len(sample), device=sample.device)


def _to_global(rows: Tensor, pool: Tensor | None) -> Tensor:
    return rows if pool is None else torch.where(rows >= 0, pool[rows], -1)
