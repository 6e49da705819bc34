"""Masks of several clicked objects in one id map; test_prepare_masks.py has the rest, from end to end."""

from itertools import permutations

import numpy as np

from gradiseg.finished.clicks import lay


def test_smaller_masks_lie_on_larger_ones_in_any_order() -> None:
    masks = np.zeros((3, 8, 8), bool)
    masks[0, 1:7, 1:7], masks[1, 2:5, 2:5], masks[2, 4:8, 4:6] = True, True, True  # 36, 9 and 8 pixels
    expected = np.zeros((8, 8), np.uint16)
    for id in (1, 2, 3):
        expected[masks[id - 1]] = id
    for order in permutations((1, 2, 3)):
        ids = np.zeros((8, 8), np.uint16)
        areas: dict[int, int] = {}
        for id in order:
            lay(ids, areas, masks[id - 1], id)
        np.testing.assert_array_equal(ids, expected)
        assert areas == {1: 36, 2: 9, 3: 8}
