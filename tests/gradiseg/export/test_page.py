"""The page: what is in it, and, where a browser is installed, that it draws what we render."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gaussian_renderer import render
from gradiseg.export.page import write_page
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera
from scene.formats.splat import ROW, read_splat, write_splat
from tests.labelled_scene import camera, labelled_scene, views
from utils.image import psnr

pytestmark = pytest.mark.usefixtures("one_thread")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SOFTWARE = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
ENLARGED = 8


def scene_of(page: str) -> dict[str, Any]:
    """The JSON that is in a page."""
    found = re.search(r'<script type="application/json" id="scene">(.*?)</script>', page, re.S)
    assert found is not None
    scene: dict[str, Any] = json.loads(found[1])
    return scene


def enlarged(view: Camera) -> Camera:
    """A camera with more pixels."""
    width, height = ENLARGED * view.image_width, ENLARGED * view.image_height
    fx, fy, cx, cy = (ENLARGED * value for value in (view.fx, view.fy, view.cx, view.cy))
    return Camera(0, "large", width, height, fx, fy, cx, cy, view.R, view.T)


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path: Path) -> None:
    model = labelled_scene()
    model = LabelledModel(
        model.params, model.ids, model.weight, model.bias, {1: "</script><b>", 2: 'a "mug"'}
    )
    write_page(tmp_path / "a.html", model, list(views().values()), "<title>", white=True)
    page = (tmp_path / "a.html").read_text()
    scene = scene_of(page)
    rows = np.frombuffer(base64.b64decode(scene["rows"]), ROW)
    np.testing.assert_array_equal(rows["xyz"], model.params["xyz"])
    ids = np.frombuffer(base64.b64decode(scene["ids"]), "<u2")
    np.testing.assert_array_equal(ids, model.ids)
    assert {"id": 1, "text": "1 </script><b> (60)"} in scene["objects"]
    assert page.count("</script>") == 2 and "&lt;title&gt;" in page
    assert not re.search(r"https?://|src=|href=|import ", page)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_browser_draws_what_we_render(tmp_path: Path) -> None:
    model, view = labelled_scene(), enlarged(camera())
    write_page(tmp_path / "a.html", model, [camera(), *views().values()], "", white=False)
    page = (tmp_path / "a.html").read_text().replace("<aside>", "<aside hidden>")
    (tmp_path / "a.html").write_text(page)
    size = f"--window-size={view.image_width},{view.image_height}"
    command = [str(BROWSER), "--headless", "--no-sandbox", *SOFTWARE, size, "--virtual-time-budget=3000"]
    command += [f"--user-data-dir={tmp_path / 'browser'}", f"--screenshot={tmp_path / 'a.png'}"]
    subprocess.run([*command, f"file://{tmp_path}/a.html"], check=True, capture_output=True, timeout=120)
    with Image.open(tmp_path / "a.png") as picture:
        drawn = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1) / 255
    write_splat(tmp_path / "a.splat", model.params)
    stored = LabelledModel(read_splat(tmp_path / "a.splat"), model.ids, model.weight, model.bias, {})
    with torch.no_grad():
        expected = render(view, stored.model())["render"]
    assert drawn.shape == expected.shape
    assert float(psnr(drawn, expected.clamp(0, 1))) > 35
