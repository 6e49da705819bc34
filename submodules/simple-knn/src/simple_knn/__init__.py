"""Exact nearest-neighbour searches over 3D Gaussians; see `search` for the shapes and the guarantees."""

from simple_knn.search import MAX_NEIGHBOURS, PointTree, directional_knn, distCUDA2, knn

__all__ = ["MAX_NEIGHBOURS", "PointTree", "directional_knn", "distCUDA2", "knn"]
