"""The report's pictures of masks."""

import numpy as np
import pytest
from PIL import Image

from gradiseg.report.pictures import BACKGROUND, painted


def test_small_objects_are_painted_on_top_of_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Image.Image] = []
    monkeypatch.setattr("gradiseg.report.pictures.figure", lambda image, *rest: shown.append(image))
    small, large = np.zeros((2, 4, 4), bool)
    large[:3], small[1, 1] = True, True
    painted({"small": small, "large": large}, {"small": (1, 2, 3), "large": (9, 9, 9)}, "")
    pixels = np.asarray(shown[0])
    assert (
        tuple(pixels[1, 1]) == (1, 2, 3)
        and tuple(pixels[0, 0]) == (9, 9, 9)
        and tuple(pixels[3, 3]) == BACKGROUND
    )
