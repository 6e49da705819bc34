"""scripts/make_turn.py: every view once, in the order of names, whatever split it is of."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import make_turn
from utils.errors import UserError

NAMES = {"train": ("a", "c", "d"), "test": ("b",)}
SIZE = (8, 4)  # width, height


def write_run(run: Path) -> None:
    """A run of four views, all panels of a view in one grey: 40 times its place in the order of names."""
    (run / "point_cloud/iteration_7").mkdir(parents=True)
    (run / "point_cloud/iteration_7/point_cloud.ply").touch()
    (run / "cameras.json").write_text(
        json.dumps([{"img_name": n} for n in (*NAMES["test"], *NAMES["train"])])
    )
    for split, names in NAMES.items():
        for number, name in enumerate(names):
            grey = 40 * (1 + "abcd".index(name))
            for panel in make_turn.PANELS:
                path = run / split / "ours_7" / panel / f"{number:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", SIZE, (grey,) * 3).save(path)


def test_views_in_order(tmp_path: Path) -> None:
    write_run(tmp_path)
    make_turn.main(["-m", str(tmp_path), "--out", str(tmp_path / "turn.webp"), "--height", "8"])
    with Image.open(tmp_path / "turn.webp") as turn:
        assert turn.n_frames == 4 and turn.size == (3 * 16, 8)
        for index in range(4):
            turn.seek(index)
            pixels = np.asarray(turn.convert("RGB")).astype(int)
            assert abs(pixels[2, 3:].mean() - 40 * (index + 1)) < 4  # the compression loses a little
            assert (pixels[-1].mean() > 230) == ("abcd"[index] in NAMES["test"])


def test_missing_pictures(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "test/ours_7/renders/00000.png").unlink()
    with pytest.raises(UserError, match=r"render\.py"):
        make_turn.main(["-m", str(tmp_path), "--out", str(tmp_path / "turn.webp")])
