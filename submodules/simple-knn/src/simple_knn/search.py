"""Exact nearest-neighbour searches over 3D points, on the CPU or a CUDA device.

N points, M queries, k neighbours. Coordinates are float32, indices int64. Results are sorted ascending, ties
by index, and are the same bits on every device and for any number of threads (on the CPU
`torch.get_num_threads()` of them run). CUDA tensors are searched where they are (`cuda`), those of any other
device are copied to the host; the results live where `points` does. Nothing here is differentiable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simple_knn import _core, cuda

MAX_NEIGHBOURS: int = _core.MAX_NEIGHBOURS
_MAX_POINTS = 2**32 - 1  # the searches carry 32-bit indices


def distCUDA2(points: Tensor) -> Tensor:
    """Mean squared distance of every point to its three nearest others; initialises the scales of 3DGS.

    points (N, 3) -> (N,). A duplicate is an other point, at distance 0. Where fewer than three others exist
    the mean is over those there are, and 0 for a single point.

    Raises: ValueError where `points` has another shape or type, or (on the CPU) holds NaN or infinity.
    """
    device = _device_for(points)
    checked_points = _coordinates("points", points, device)  # (N, 3)
    if device.type == "cuda":
        return cuda.mean_squared_distance(checked_points)
    result = torch.empty(len(checked_points), device="cpu")  # (N,)
    _core.mean_squared_distance(
        checked_points.data_ptr(), len(checked_points), result.data_ptr(), torch.get_num_threads()
    )
    return result.to(points.device)


def knn(points: Tensor, queries: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k points nearest to every query.

    points (N, 3), queries (M, 3), exclude (M,) int64 index of the one point that a query must not find (-1:
    none) -> indices (M, k) int64, squared distances (M, k); index -1 and distance infinity where fewer than k
    points remain.

    Raises: ValueError where an argument has another shape or type, holds NaN or infinity (on the CPU), or k
    is not in 1 .. 512.
    """
    return PointTree().knn(points, queries, k, exclude)


class PointTree:
    """`knn` for points that are searched again and again while they move: the same results, bit for bit.

    The search tree of the last call is kept. Where the number of points is the same, only its bounding boxes
    are fitted to the new positions; a new tree is built where the number has changed or where the points have
    moved so far that the leaves are twice as large as when it was built. The search is exact with either, so
    nothing depends on when that happens.
    """

    def __init__(self) -> None:
        self._tree: _core.KdTree | None = None

    def knn(
        self, points: Tensor, queries: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`knn` over `points`, which the tree follows."""
        device = _device_for(points)
        checked_points = _coordinates("points", points, device)  # (N, 3)
        checked_queries = _coordinates("queries", queries, device)  # (M, 3)
        _check_k(k)
        checked_exclude = None
        if exclude is not None:
            checked_exclude = _indices(
                "exclude", exclude, len(checked_queries), -1, len(checked_points), device
            )  # (M,)
        if device.type == "cuda":
            return cuda.nearest(checked_points, checked_queries, k, checked_exclude)
        indices, squared_distances = _results(len(checked_queries), k)  # (M, k) each
        self._follow(checked_points).nearest(
            checked_queries.data_ptr(),
            0 if checked_exclude is None else checked_exclude.data_ptr(),
            len(checked_queries),
            k,
            indices.data_ptr(),
            squared_distances.data_ptr(),
            torch.get_num_threads(),
        )
        return indices.to(points.device), squared_distances.to(points.device)

    def _follow(self, checked_points: Tensor) -> _core.KdTree:
        tree, threads = self._tree, torch.get_num_threads()
        if (
            tree is None
            or tree.count != len(checked_points)
            or not tree.refit(checked_points.data_ptr(), threads)
        ):
            tree = self._tree = _core.KdTree(checked_points.data_ptr(), len(checked_points), threads)
        return tree


def directional_knn(points: Tensor, origins: Tensor, directions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k points of smallest positive projection (p' - p) . u, over all points, at any distance across u.

    points (N, 3), origins (M,) int64 index of p, directions (M, 3) = u, not normalised here -> indices (M, k)
    int64, projections (M, k); index -1 and projection infinity where fewer than k points lie ahead.

    Raises: ValueError where an argument has another shape or type, k is not in 1 .. 512, or (on the CPU) one
    holds NaN or infinity, or an origin is not an index of `points`.
    """
    device = _device_for(points)
    checked_points = _coordinates("points", points, device)  # (N, 3)
    checked_directions = _coordinates("directions", directions, device)  # (M, 3)
    _check_k(k)
    checked_origins = _indices(
        "origins", origins, len(checked_directions), 0, len(checked_points), device
    )  # (M,)
    if device.type == "cuda":
        return cuda.directional_nearest(checked_points, checked_origins, checked_directions, k)
    indices, projections = _results(len(checked_directions), k)  # (M, k) each
    _core.directional_nearest(
        checked_points.data_ptr(),
        len(checked_points),
        checked_origins.data_ptr(),
        checked_directions.data_ptr(),
        len(checked_directions),
        k,
        indices.data_ptr(),
        projections.data_ptr(),
        torch.get_num_threads(),
    )
    return indices.to(points.device), projections.to(points.device)


def _device_for(points: Tensor) -> torch.device:
    """Where the search runs."""
    if points.is_cuda:
        cuda.check_device(points.device)
    return points.device if points.is_cuda else torch.device("cpu")


def _coordinates(name: str, tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor as the searches read it: on `device`, contiguous, checked.

    Values on a GPU are not: reading them back would wait for the device. The rasterizer's kernels refuse NaN.
    """
    if tensor.ndim != 2 or tensor.shape[1] != 3:
        raise ValueError(f"{name} must have shape (count, 3), not {tuple(tensor.shape)}.")
    if tensor.dtype != torch.float32:
        raise ValueError(f"{name} must be float32, not {tensor.dtype}.")
    if len(tensor) > _MAX_POINTS:
        raise ValueError(f"{name} holds {len(tensor)} rows, more than 32-bit indices can name.")
    checked = tensor.detach().to(device).contiguous()
    readable = len(checked) and not checked.is_cuda
    if readable and not all(math.isfinite(bound) for bound in checked.aminmax()):  # one pass; NaN propagates
        raise ValueError(f"{name} holds NaN or infinity.")
    return checked


def _indices(name: str, tensor: Tensor, length: int, low: int, high: int, device: torch.device) -> Tensor:
    if tensor.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), not {tuple(tensor.shape)}.")
    if tensor.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, not {tensor.dtype}.")
    checked = tensor.to(device).contiguous()
    if length and not checked.is_cuda and not (low <= int(checked.min()) and int(checked.max()) < high):
        raise ValueError(f"{name} must lie in {low} .. {high - 1}.")
    return checked


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_NEIGHBOURS:
        raise ValueError(f"k must lie in 1 .. {MAX_NEIGHBOURS}, not {k}.")


def _results(num_queries: int, k: int) -> tuple[Tensor, Tensor]:
    indices = torch.empty(num_queries, k, dtype=torch.int64, device="cpu")
    return indices, torch.empty(num_queries, k, device="cpu")
