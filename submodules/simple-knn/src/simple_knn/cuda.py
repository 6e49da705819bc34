"""The searches on a GPU: the same results as on the CPU, bit for bit; `search` checks the arguments.

N points, M queries. All tensors are contiguous and on one device; everything runs on its current stream, and
torch allocates all memory.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from simple_knn.availability import cuda_problem

try:
    from simple_knn import _cuda
except ImportError:  # built without CUDA: `cuda_problem` says why
    _cuda = None  # type: ignore[assignment]


def check_device(device: torch.device) -> None:
    """Raises: ValueError where searches cannot run on this GPU; the message says why."""
    if (problem := cuda_problem(device)) is not None:
        raise ValueError(problem)


def mean_squared_distance(points: Tensor) -> Tensor:
    """points (N, 3) -> (N,), as `search.distCUDA2`."""
    result = torch.empty_like(points[:, 0], memory_format=torch.contiguous_format)  # (N,)
    if len(points):
        with _use(points.device):
            tree = _build_tree(points)
            _cuda.mean_squared_distance(
                tree.data_ptr(), len(points), result.data_ptr(), _stream(points.device)
            )
    return result


def nearest(points: Tensor, queries: Tensor, k: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
    """points (N, 3), queries (M, 3), exclude (M,) -> (M, k) each, as `search.knn`."""
    indices, squared_distances = _results(points, len(queries), k)
    if len(points) and len(queries):
        with _use(points.device):
            tree = _build_tree(points)
            _cuda.nearest(
                tree.data_ptr(),
                len(points),
                queries.data_ptr(),
                0 if exclude is None else exclude.data_ptr(),
                len(queries),
                k,
                indices.data_ptr(),
                squared_distances.data_ptr(),
                _stream(points.device),
            )
    return indices, squared_distances


def directional_nearest(points: Tensor, origins: Tensor, directions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """points (N, 3), origins (M,), directions (M, 3) -> (M, k) each, as `search.directional_knn`."""
    indices, projections = _results(points, len(origins), k)
    if len(points) and len(origins):
        workspace = _bytes(points, _cuda.directional_bytes(len(points), len(origins), k))
        with _use(points.device):
            _cuda.directional_nearest(
                points.data_ptr(),
                len(points),
                origins.data_ptr(),
                directions.data_ptr(),
                len(origins),
                k,
                workspace.data_ptr(),
                indices.data_ptr(),
                projections.data_ptr(),
                _stream(points.device),
            )
    return indices, projections


def _build_tree(points: Tensor) -> Tensor:
    """The tree of csrc/cuda/search.h over points sorted by torch, whose radix sort is the fastest at hand."""
    bounds = torch.stack(points.aminmax(dim=0))  # (2, 3)
    codes = torch.empty(len(points), dtype=torch.int64, device=points.device)  # (N,)
    tree = _bytes(points, _cuda.tree_bytes(len(points)))
    stream = _stream(points.device)
    _cuda.morton_codes(points.data_ptr(), len(points), bounds.data_ptr(), codes.data_ptr(), stream)
    order = codes.argsort()  # (N,)
    _cuda.build_tree(points.data_ptr(), len(points), order.data_ptr(), tree.data_ptr(), stream)
    return tree


def _results(points: Tensor, num_queries: int, k: int) -> tuple[Tensor, Tensor]:
    """Indices and values (M, k), filled as where there are no points."""
    indices = torch.full((num_queries, k), -1, dtype=torch.int64, device=points.device)
    return indices, torch.full((num_queries, k), torch.inf, device=points.device)


def _bytes(like: Tensor, count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=like.device)


def _use(device: torch.device) -> AbstractContextManager[Any]:
    """Launches inside go to `device`."""
    return torch.cuda.device(device)


def _stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream
