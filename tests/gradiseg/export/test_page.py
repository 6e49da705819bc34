"""The page: what is in it, and, where a browser is installed, that it draws what we render."""

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gaussian_renderer import render
from gradiseg.export.page import write_page
from scene.cameras import Camera
from scene.formats.splat import ROW, read_splat, write_splat
from tests.labelled_scene import camera, labelled_scene, views
from utils.image import psnr

pytestmark = pytest.mark.usefixtures("one_thread")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SOFTWARE = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


def scene_of(page: str) -> dict[str, Any]:
    """The JSON that is in a page."""
    found = re.search(r'<script type="application/json" id="scene">(.*?)</script>', page, re.S)
    assert found is not None
    scene: dict[str, Any] = json.loads(found[1])
    return scene


def as_in(picture: Tensor, view: Camera) -> Camera:
    """A camera of the size of a picture, and of the height that a view has in the scene."""
    height, width = picture.shape[1:]
    focal = view.fy * height / view.image_height
    return Camera(0, "page", width, height, focal, focal, width / 2, height / 2, view.R, view.T)


def drawn_by_a_browser(path: Path) -> Tensor:
    """The canvas (3, H, W) of a page, in [0, 1]: a script hands it over as text of the document."""
    hand_over = "<script>document.title = canvas.toDataURL()</script></body>"
    page = path.read_text().replace("</body>", hand_over)
    assert "alpha: false" in page
    path.write_text(page.replace("alpha: false", "alpha: false, preserveDrawingBuffer: true"))
    command = [str(BROWSER), "--headless", "--no-sandbox", *SOFTWARE, "--window-size=640,480"]
    command += [f"--user-data-dir={path.parent / 'browser'}", "--dump-dom", f"file://{path}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    found = re.search("<title>data:image/png;base64,(.*?)</title>", done.stdout)
    assert found is not None, done.stdout[-2000:]
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1) / 255


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path: Path) -> None:
    model = replace(labelled_scene(), names={1: "</script><b>", 2: 'a "mug"'})
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
    model = labelled_scene()
    write_page(tmp_path / "a.html", model, [camera(), *views().values()], "", white=False)
    drawn = drawn_by_a_browser(tmp_path / "a.html")
    write_splat(tmp_path / "a.splat", model.params)
    stored = replace(model, params=read_splat(tmp_path / "a.splat"))
    with torch.no_grad():
        expected = render(as_in(drawn, camera()), stored.model())["render"]
    assert float(psnr(drawn, expected.clamp(0, 1))) > 40
