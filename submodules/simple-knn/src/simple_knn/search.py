"""Exact nearest-neighbour searches over 3D points, on the CPU.

N points, M queries, k neighbours. Coordinates are float32, indices int64. Results are sorted ascending, ties
by index, and are the same bits for any number of threads (`torch.get_num_threads()` of them run). Tensors of
another device are copied to the host for the search; the results live where `points` does. Nothing here is
differentiable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simple_knn import _core

MAX_NEIGHBOURS: int = _core.MAX_NEIGHBOURS
_MAX_POINTS = 2**32 - 1  # the searches carry 32-bit indices


def distCUDA2(points: Tensor) -> Tensor:
    """Mean squared distance of every point to its three nearest others; initialises the scales of 3DGS.

    points (N, 3) -> (N,). A duplicate is an other point, at distance 0. Where fewer than three others exist
    the mean is over those there are, and 0 for a single point.

    Raises: ValueError where `points` has another shape or type, or holds NaN or infinity.
    """
    host_points = _coordinates("points", points)  # (N, 3)
    result = torch.empty(len(host_points))  # (N,)
    _core.mean_squared_distance(
        host_points.data_ptr(), len(host_points), result.data_ptr(), torch.get_num_threads()
    )
    return result.to(points.device)


def knn(points: Tensor, queries: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k points nearest to every query.

    points (N, 3), queries (M, 3), exclude (M,) int64 index of the one point that a query must not find (-1:
    none) -> indices (M, k) int64, squared distances (M, k); index -1 and distance infinity where fewer than k
    points remain.

    Raises: ValueError where an argument has another shape or type, holds NaN or infinity, or k is not in 1 ..
    512.
    """
    host_points = _coordinates("points", points)  # (N, 3)
    host_queries = _coordinates("queries", queries)  # (M, 3)
    _check_k(k)
    host_exclude = None
    if exclude is not None:
        host_exclude = _indices("exclude", exclude, len(host_queries), -1, len(host_points))  # (M,)
    indices, squared_distances = _results(len(host_queries), k)  # (M, k) each
    _core.nearest(
        host_points.data_ptr(),
        len(host_points),
        host_queries.data_ptr(),
        0 if host_exclude is None else host_exclude.data_ptr(),
        len(host_queries),
        k,
        indices.data_ptr(),
        squared_distances.data_ptr(),
        torch.get_num_threads(),
    )
    return indices.to(points.device), squared_distances.to(points.device)


def directional_knn(points: Tensor, origins: Tensor, directions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k points of smallest positive projection (p' - p) . u, over all points, at any distance across u.

    points (N, 3), origins (M,) int64 index of p, directions (M, 3) = u, not normalised here -> indices (M, k)
    int64, projections (M, k); index -1 and projection infinity where fewer than k points lie ahead.

    Raises: ValueError where an argument has another shape or type, holds NaN or infinity, an origin is not an
    index of `points`, or k is not in 1 .. 512.
    """
    host_points = _coordinates("points", points)  # (N, 3)
    host_directions = _coordinates("directions", directions)  # (M, 3)
    _check_k(k)
    host_origins = _indices("origins", origins, len(host_directions), 0, len(host_points))  # (M,)
    indices, projections = _results(len(host_directions), k)  # (M, k) each
    _core.directional_nearest(
        host_points.data_ptr(),
        len(host_points),
        host_origins.data_ptr(),
        host_directions.data_ptr(),
        len(host_directions),
        k,
        indices.data_ptr(),
        projections.data_ptr(),
        torch.get_num_threads(),
    )
    return indices.to(points.device), projections.to(points.device)


def _coordinates(name: str, tensor: Tensor) -> Tensor:
    """The tensor as the searches read it: on the host, contiguous, checked."""
    if tensor.ndim != 2 or tensor.shape[1] != 3:
        raise ValueError(f"{name} must have shape (count, 3), not {tuple(tensor.shape)}.")
    if tensor.dtype != torch.float32:
        raise ValueError(f"{name} must be float32, not {tensor.dtype}.")
    if len(tensor) > _MAX_POINTS:
        raise ValueError(f"{name} holds {len(tensor)} rows, more than 32-bit indices can name.")
    host = tensor.detach().to("cpu").contiguous()
    if len(host) and not all(math.isfinite(bound) for bound in host.aminmax()):  # one pass; NaN propagates
        raise ValueError(f"{name} holds NaN or infinity.")
    return host


def _indices(name: str, tensor: Tensor, length: int, low: int, high: int) -> Tensor:
    if tensor.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), not {tuple(tensor.shape)}.")
    if tensor.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, not {tensor.dtype}.")
    host = tensor.to("cpu").contiguous()
    if length and not (low <= int(host.min()) and int(host.max()) < high):
        raise ValueError(f"{name} must lie in {low} .. {high - 1}.")
    return host


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_NEIGHBOURS:
        raise ValueError(f"k must lie in 1 .. {MAX_NEIGHBOURS}, not {k}.")


def _results(num_queries: int, k: int) -> tuple[Tensor, Tensor]:
    return torch.empty(num_queries, k, dtype=torch.int64), torch.empty(num_queries, k)
