"""scripts/make_edits_picture.py: every run as it is, then what each recipe makes of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.make_edits_picture import main
from tests.disc_scene import DISCS, HEIGHT, WIDTH, write_run, write_scene
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_two_runs_with_and_without_an_object(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene")
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        write_run(run, tmp_path / "scene")
    recipe, out = tmp_path / "gone.json", tmp_path / "sheet.jpg"
    operation = {"operation": "remove", "select": DISCS["red disc"].identity}
    recipe.write_text(json.dumps({"operations": [operation]}))
    named = ["-m", *map(str, runs), "--recipes", str(recipe), "--height", str(HEIGHT), "--out", str(out)]
    main([*named, "--columns", "2", "--views", "0"])
    sheet = np.asarray(Image.open(out)).astype(int)
    assert sheet.shape[1] == 2 * WIDTH and sheet.shape[0] > 2 * HEIGHT
    red = (sheet[..., 0] - sheet[..., 1:].max(-1) > 80).reshape(2, -1, 2, WIDTH).sum((1, 3))
    assert (red[:, 0] > 100).all() and (red[:, 1] < 10).all()  # each run is a row: as it is, without the disc
    with pytest.raises(UserError, match="--views"):
        main([*named, "--views", "99"])
