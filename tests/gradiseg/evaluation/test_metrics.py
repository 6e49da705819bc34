"""IoU and boundary IoU: brute force, invariances and limits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradiseg.evaluation.metrics import (
    BoolArray,
    band_error,
    boundary_dilation,
    boundary_iou,
    mask_boundary,
    mask_iou,
    score_mask,
)

SHAPE = (9, 12)
masks = arrays(bool, SHAPE)


def brute_boundary(mask: BoolArray, dilation: int) -> BoolArray:
    """Mask pixels whose (2d+1)^2 square holds a pixel outside the mask or the image."""
    height, width = mask.shape
    result = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        inside = [
            0 <= v < height and 0 <= u < width and bool(mask[v, u])
            for v in range(y - dilation, y + dilation + 1)
            for u in range(x - dilation, x + dilation + 1)
        ]
        result[y, x] = not all(inside)
    return result


@settings(deadline=None, max_examples=50)
@given(masks, st.integers(1, 4))
def test_boundary_equals_brute_force(mask: BoolArray, dilation: int) -> None:
    assert np.array_equal(mask_boundary(mask, dilation), brute_boundary(mask, dilation))


@settings(deadline=None, max_examples=50)
@given(masks, masks)
def test_iou_equals_set_arithmetic_and_is_symmetric(a: BoolArray, b: BoolArray) -> None:
    first = {tuple(p) for p in np.argwhere(a)}
    second = {tuple(p) for p in np.argwhere(b)}
    expected = len(first & second) / len(first | second) if first | second else 1.0
    assert mask_iou(a, b) == pytest.approx(expected)
    assert mask_iou(a, b) == mask_iou(b, a)
    assert boundary_iou(a, b) == boundary_iou(b, a)


@settings(deadline=None, max_examples=25)
@given(masks)
def test_a_mask_scores_one_against_itself_and_zero_against_nothing(mask: BoolArray) -> None:
    score = score_mask(mask, mask)
    assert (score.iou, score.biou, score.biou_strict, score.band_error) == (1.0, 1.0, 1.0, 0.0)
    nothing = score_mask(np.zeros_like(mask), mask)
    assert nothing.iou == nothing.biou == (0.0 if mask.any() else 1.0)


@settings(deadline=None, max_examples=25)
@given(masks, masks)
def test_scores_do_not_change_under_a_mirror_image(a: BoolArray, b: BoolArray) -> None:
    assert score_mask(a, b) == score_mask(a[:, ::-1], b[:, ::-1]) == score_mask(a[::-1], b[::-1])


def test_a_full_image_has_a_band_along_its_border() -> None:
    band = mask_boundary(np.ones((20, 30), bool), 3)
    assert band.sum() == 20 * 30 - 14 * 24


def test_a_band_as_wide_as_the_object_makes_boundary_iou_the_iou() -> None:
    truth = np.zeros((300, 400), bool)
    truth[100:112, 100:112] = True  # 12 pixels wide, band 10
    prediction = np.roll(truth, 3, axis=1)
    assert boundary_iou(prediction, truth) == mask_iou(prediction, truth)
    assert boundary_iou(prediction, truth, 0.005) < mask_iou(prediction, truth)


def test_band_width_is_a_share_of_the_diagonal_and_at_least_one_pixel() -> None:
    assert boundary_dilation(120, 160) == 4
    assert boundary_dilation(120, 160, 0.005) == 1
    assert boundary_dilation(6, 8, 0.005) == 1
    assert boundary_dilation(1080, 1920) == round(0.02 * math.hypot(1080, 1920))


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        mask_iou(np.ones((3, 4), bool), np.ones((4, 3), bool))


def test_band_error_counts_only_pixels_near_the_true_boundary():
    truth = np.zeros((40, 40), bool)
    truth[:, :20] = True
    prediction = truth.copy()
    prediction[:, 20] = True  # one of the six columns of the band is wrong
    prediction[:, 39] = True  # far away
    assert band_error(prediction, truth) == pytest.approx(1 / 6)
    assert band_error(~truth, truth) == 1.0
    assert band_error(prediction, np.zeros_like(truth)) == 0.0
