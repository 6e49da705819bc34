"""Pictures of a labelled model: colour, selection, ids, identity map, depth; one or two of them side by side.

A canvas is what a client sees, (H, W, 3) uint8. It holds panes, each with a camera of its own; a point of the
canvas is a pixel of one of them.
"""

import enum
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from gaussian_renderer import draw, surface
from gradiseg.classifier import identify, map_encodings
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera, resize_image
from utils.image import PcaColors, id_palette, pca_colors, to_uint8

Canvas = NDArray[np.uint8]
Point = tuple[float, float]

HIGHLIGHT = (1.0, 0.55, 0.0)  # of what is selected; no object of a palette has it
TINT = 0.2  # of the highlight over the selection: its own colours stay to be seen
RIM = 1 / 320  # width of its outline in pictures
NEAREST, FARTHEST = 0.02, 0.98  # quantiles of depth drawn white and black: specks must not take the range
DEPTHS = 20_000  # pixels of which the quantiles are taken: sorting all of them takes longer than drawing them
SOLID = 0.5  # alpha from which a pixel has a depth


class Mode(enum.Enum):
    """What of the model is shown."""

    SELECTION = "colour and selection"
    COLOUR = "colour"
    IDS = "ids"
    IDENTITY = "identity map"
    DEPTH = "depth"


class Layout(enum.Enum):
    """How many pictures."""

    ONE = "one picture"
    BEFORE = "before and after"
    PHOTOGRAPH = "photograph and picture"


@dataclass(frozen=True)
class Pane:
    """A picture within a canvas: its upper left corner, its camera (of its size), and what it shows."""

    left: int
    top: int
    camera: Camera
    is_original: bool = False
    photograph: Camera | None = None  # whose photograph is shown in the place of a render

    def holds(self, x: float, y: float) -> bool:
        """Whether a point of the canvas lies in it."""
        return 0 <= x - self.left < self.camera.image_width and 0 <= y - self.top < self.camera.image_height


def panes_of(layout: Layout, camera: Camera, view: Camera | None) -> list[Pane]:
    """The panes of a canvas of the size of `camera`; `view` is the scene's view of `Layout.PHOTOGRAPH`."""
    width, height = camera.image_width, camera.image_height
    half = width // 2
    if layout is Layout.BEFORE and half:
        narrow = with_window(camera, (width - half) / 2, half)
        return [Pane(0, 0, narrow, is_original=True), Pane(half, 0, narrow)]
    if layout is Layout.PHOTOGRAPH and view is not None and half:
        scale = min(half / view.image_width, height / view.image_height)
        fitted = view.at_resolution(
            max(1, int(scale * view.image_width)), max(1, int(scale * view.image_height))
        )
        top = (height - fitted.image_height) // 2
        return [Pane(0, top, fitted, photograph=view), Pane(half, top, fitted)]
    return [Pane(0, 0, camera)]


def with_window(camera: Camera, left: float, width: int) -> Camera:
    """The columns of a view from `left` on, `width` of them, as a view of its own."""
    intrinsics = (camera.fx, camera.fy, camera.cx - left, camera.cy)
    window = Camera(
        camera.uid, camera.image_name, width, camera.image_height, *intrinsics, camera.R, camera.T
    )
    return window.with_matrices_on(camera.world_view_transform.device)


def paste(camera: Camera, panes: Sequence[Pane], pictures: Sequence[Canvas]) -> Canvas:
    """The canvas of the size of `camera` with every pane's picture; dark grey where there is none."""
    if len(panes) == 1 and pictures[0].shape[:2] == (camera.image_height, camera.image_width):
        return pictures[0]
    canvas = np.full((camera.image_height, camera.image_width, 3), 32, dtype=np.uint8)
    for pane, picture in zip(panes, pictures, strict=True):
        canvas[pane.top : pane.top + picture.shape[0], pane.left : pane.left + picture.shape[1]] = picture
    return canvas


@torch.no_grad()
def picture(
    model: LabelledModel,
    camera: Camera,
    mode: Mode,
    background: Tensor,
    chosen: Tensor | None = None,
    colors: PcaColors | None = None,
) -> Canvas:
    """One picture of a model with one Gaussian at least.

    background: (3,). chosen: (N,) bool, what `Mode.SELECTION` highlights. colors: of `Mode.IDENTITY`.
    Identities are blended only where the mode needs them: they cost as much as the colours.
    """
    gaussians = model.model()
    if mode is Mode.DEPTH:
        return _pixels(depth_picture(*surface(camera, gaussians)[:2]))
    if mode in (Mode.IDS, Mode.IDENTITY):
        encodings = draw(camera, gaussians, background, model.params["obj_dc"][:, 0])[1]  # (16, H, W)
        if mode is Mode.IDENTITY and colors is not None:
            return _pixels(pca_colors(encodings, colors))
        ids = identify(map_encodings(encodings), model.classifier())
        return np.ascontiguousarray(palette(model.num_classes)[ids.cpu().numpy()])
    if mode is Mode.SELECTION and chosen is not None and bool(chosen.any()):
        color, share = draw(camera, gaussians, background, chosen[:, None].to(background))
        weight = torch.maximum(TINT * share, rim_of(share > 0.5))  # (1, H, W)
        return _pixels((1 - weight) * color + weight * color.new_tensor(HIGHLIGHT)[:, None, None])
    return _pixels(draw(camera, gaussians, background)[0])


def rim_of(region: Tensor) -> Tensor:
    """1 on the outside along a region (1, H, W) bool, 0 elsewhere."""
    reach = max(1, round(RIM * region.shape[2]))
    wider = region.float()
    for axis in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        wider = torch.nn.functional.max_pool2d(wider, axis, 1, (axis[0] // 2, axis[1] // 2))
    return wider - region.float()


def depth_picture(alpha: Tensor, depth: Tensor) -> Tensor:
    """A depth (H, W) as grey (3, H, W): near is white, far and nothing are black."""
    solid = depth[alpha > SOLID]
    if not len(solid):
        return depth.new_zeros(3, *depth.shape)
    some = solid[:: 1 + len(solid) // DEPTHS].sort().values
    near, far = (some[int(share * (len(some) - 1))] for share in (NEAREST, FARTHEST))
    grey = 1 - 0.85 * ((depth - near) / (far - near).clamp_min(1e-6)).clamp(0, 1)
    return (grey * alpha).expand(3, *depth.shape)


def photograph_picture(view: Camera, width: int, height: int) -> Canvas:
    """The photograph of a view at a size; grey where it has none."""
    pixels = view.image_uint8
    if pixels is None:
        return np.full((height, width, 3), 96, dtype=np.uint8)
    image = Image.fromarray(pixels.cpu().permute(1, 2, 0).contiguous().numpy())
    return np.array(resize_image(image, width, height))


def with_outline(canvas: Canvas, corners: Sequence[Point]) -> Canvas:
    """The canvas with the corners of a lasso, and the lines between them."""
    if not corners:
        return canvas
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    radius = max(2, canvas.shape[1] // 200)
    if len(corners) > 1:
        pen.line(list(corners), fill="white", width=max(1, radius // 2))
    for x, y in corners:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill="orange", outline="white")
    return np.array(image)


@functools.lru_cache(maxsize=4)
def palette(num_classes: int) -> Canvas:
    """Colours (C, 3) of ids, the same as in all pictures of ids."""
    return id_palette(num_classes).numpy()


def _pixels(image: Tensor) -> Canvas:
    return to_uint8(image).permute(1, 2, 0).contiguous().cpu().numpy()
