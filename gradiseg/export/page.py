"""One HTML file that shows a model to anybody with a browser: no server, no network, no installation.

The Gaussians are in it as the rows of a `.splat`, so that colours do not depend on the direction; ids and
names are in it, too, and objects can be hidden. `page.js` draws.
"""

import base64
import json
from html import escape
from pathlib import Path

import numpy as np
import torch

from gradiseg.export.exported import upwards
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera
from scene.formats.splat import splat_rows
from utils import html
from utils.files import write_text

STYLE = """
html, body { margin: 0; height: 100%; background: #000; font: 14px/1.5 system-ui, sans-serif; color: #fff }
canvas { width: 100%; height: 100%; display: block; touch-action: none; cursor: grab }
aside { position: fixed; top: 0; left: 0; max-height: 100%; overflow: auto; padding: .6em 1em;
  background: #000a }
h1 { font-size: 1em; margin: 0 } label { display: block } p { margin: .3em 0; color: #bbb; max-width: 16em }
"""
BODY = """<canvas></canvas>
<aside><details open><summary>{title}</summary><div id="objects"></div>
<p>Drag: turn. Wheel: distance. Shift and drag: move. Colours are those of the mean direction.</p></details>
<p id="fault"></p></aside>
<script type="application/json" id="scene">{scene}</script>
<script>{script}</script>"""


def write_page(path: Path, model: LabelledModel, cameras: list[Camera], title: str, white: bool) -> None:
    """Write the page of a model, seen first as the first of the cameras saw it.

    `white`: whether the background is white, else black. Raises: ValueError for no camera.
    """
    scene = {
        "rows": _base64(splat_rows(model.params)),
        "ids": _base64(model.ids.cpu().numpy().astype("<u2")),
        "objects": [{"id": id, "text": text} for id, text in _objects(model)],
        "camera": _first_view(model, cameras),
        "background": 1 if white else 0,
    }
    text = json.dumps(scene).replace("<", "\\u003c")  # a name must not end the element
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    body = BODY.format(title=escape(title), scene=text, script=script)
    write_text(path, html.page(title, STYLE, body))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _objects(model: LabelledModel) -> list[tuple[int, str]]:
    names = {0: "no object", **model.names}
    return [(id, f"{id} {names.get(id, '')} ({n:,})") for id, n in model.counts().items()]


def _first_view(model: LabelledModel, cameras: list[Camera]) -> dict[str, object]:
    """Where the page's camera stands, the point that it turns about, up, half its height at 1."""
    if not cameras:
        raise ValueError("a page needs a camera to start from")
    first = cameras[0]
    position, forward = first.camera_center.cpu().double(), torch.from_numpy(first.R[:, 2]).double()
    middle = model.params["xyz"].cpu().double().median(0).values
    distance = max(float((middle - position) @ forward), 0.1)
    up = upwards(torch.stack([-torch.from_numpy(camera.R[:, 1]) for camera in cameras]))
    return {
        "position": position.tolist(),
        "target": (position + distance * forward).tolist(),
        "up": up,
        "slope": first.image_height / (2 * first.fy),
    }
