"""Sheets: every panel at its place, under its caption."""

from pathlib import Path

import numpy as np
from PIL import Image

from utils.sheet import CAPTION, captioned, grid, save_jpeg


def test_panels_stand_in_rows_under_their_captions(tmp_path: Path) -> None:
    colours = ["red", "lime", "blue"]
    panels = [captioned(Image.new("RGB", (40, 16), colour), "name") for colour in colours]
    sheet = np.asarray(grid(panels, 2))
    assert sheet.shape == (2 * (CAPTION + 16), 80, 3)
    for number, channel in enumerate(range(3)):
        top, left = number // 2 * (CAPTION + 16), number % 2 * 40
        assert (sheet[top + CAPTION : top + CAPTION + 16, left : left + 40, channel] == 255).all()
        assert sheet[top : top + CAPTION, left : left + 40].min() < 100  # ink
    assert (sheet[CAPTION + 16 :, 40:] == 255).all()  # no fourth panel
    save_jpeg(tmp_path / "sheet.jpg", grid(panels, 9))
    with Image.open(tmp_path / "sheet.jpg") as saved:
        assert saved.format == "JPEG" and saved.size == (120, CAPTION + 16)
