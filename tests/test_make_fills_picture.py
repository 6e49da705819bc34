"""scripts/make_fills_picture.py: what is cut out is the hole, also at the border of a picture."""

import numpy as np
import pytest
import torch

from scripts.make_fills_picture import cut


@pytest.mark.parametrize("corner", [(4, 6), (0, 0), (15, 22)])
def test_the_hole_is_in_the_middle_or_at_the_border(corner: tuple[int, int]) -> None:
    """A white hole of 5 by 8 in a black picture of 20 by 30 fills its share of the square about it."""
    region = np.zeros((20, 30), bool)
    region[corner[0] : corner[0] + 5, corner[1] : corner[1] + 8] = True
    square = cut(torch.from_numpy(region).float().expand(3, -1, -1), region, 10)  # of 10 pixels: 1.2 * 8
    white = np.asarray(square)[..., 0] == 255
    assert square.size == (10, 10) and white.sum() == 5 * 8
    assert corner != (4, 6) or white[3:7, 1:9].all()
