"""Mask metrics: intersection over union and boundary IoU.

Naming contract: `prediction` and `truth` are boolean arrays (H, W) of equal shape; every score lies in [0,
1]. Boundary IoU (Cheng et al., CVPR 2021): the IoU of the two masks' inner boundary bands, where the band
holds the mask's pixels within `dilation` pixels (chessboard distance) of its outside and `dilation` is a
fixed share of the image diagonal. What lies beyond the image counts as outside, so a mask cut by the border
has a band along the border too.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

BoolArray = NDArray[np.bool_]

DILATION_RATIO = 0.02  # Gaussian Grouping's and the boundary-IoU authors' default
STRICT_DILATION_RATIO = (
    0.005  # on small objects the default band swallows the mask and boundary IoU becomes IoU
)
ERROR_BAND = 3  # pixels on either side of a true boundary in which errors are counted


@dataclass(frozen=True)
class MaskScore:
    """IoU, boundary IoU, strict boundary IoU and band error of one mask."""

    iou: float
    biou: float
    biou_strict: float
    band_error: float


ZERO_SCORE = MaskScore(0.0, 0.0, 0.0, 1.0)  # of a prediction that is missing


def mask_iou(prediction: BoolArray, truth: BoolArray) -> float:
    """Intersection over union of two masks (H, W).

    Where both are empty they agree, and the score is 1; where only one is empty it is 0.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of different shapes: {prediction.shape} and {truth.shape}")
    union = int(np.count_nonzero(prediction | truth))
    return int(np.count_nonzero(prediction & truth)) / union if union else 1.0


def boundary_dilation(height: int, width: int, ratio: float = DILATION_RATIO) -> int:
    """Width of the boundary band in pixels: `ratio` of the image diagonal, rounded, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def mask_boundary(mask: BoolArray, dilation: int) -> BoolArray:
    """Inner boundary band (H, W) of a mask: the mask minus its erosion, `dilation` times, by a 3x3 square."""
    eroded = binary_erosion(mask, structure=np.ones((3, 3), bool), iterations=dilation, border_value=0)
    return mask & ~eroded


def boundary_iou(prediction: BoolArray, truth: BoolArray, ratio: float = DILATION_RATIO) -> float:
    """Boundary IoU of two masks (H, W) with a band of `ratio` times the image diagonal."""
    dilation = boundary_dilation(truth.shape[0], truth.shape[1], ratio)
    return mask_iou(mask_boundary(prediction, dilation), mask_boundary(truth, dilation))


def band_error(prediction: BoolArray, truth: BoolArray, width: int = ERROR_BAND) -> float:
    """Share of the pixels within `width` of the true boundary that `prediction` puts on the wrong side.

    Distances are chessboard distances. A true mask that is empty or fills the image has no boundary: 0.
    """
    square = np.ones((3, 3), bool)
    near = binary_dilation(truth, square, width) & binary_dilation(~truth, square, width)
    return float(np.mean((prediction != truth)[near])) if near.any() else 0.0


def score_mask(prediction: BoolArray, truth: BoolArray) -> MaskScore:
    """All scores of one mask (H, W)."""
    return MaskScore(
        iou=mask_iou(prediction, truth),
        biou=boundary_iou(prediction, truth),
        biou_strict=boundary_iou(prediction, truth, STRICT_DILATION_RATIO),
        band_error=band_error(prediction, truth),
    )
