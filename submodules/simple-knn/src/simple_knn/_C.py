"""Where 3DGS and Gaussian Grouping import from: `from simple_knn._C import distCUDA2`."""

from simple_knn.search import distCUDA2

__all__ = ["distCUDA2"]
