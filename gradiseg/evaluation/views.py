"""The pictures of a trained run, in Gaussian Grouping's folders, and a video of them.

Below `<split>/ours_N/`: `renders` and `gt` (render and photograph), `objects_feature16` (identity map in
three colours), `gt_objects_color` and `objects_pred` (true and predicted ids in one palette), `objects_id`
(predicted ids as numbers), `concat` (all of them side by side). Files are `00000.png`, `00001.png`, ... in
the order of the cameras.
"""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gaussian_renderer import IdentityRenderer
from gradiseg.classifier import identify, map_encodings
from scene.cameras import Camera
from scene.masks import write_id_map
from utils.errors import UserError
from utils.files import atomic_write
from utils.image import (
    PcaColors,
    colorize_ids,
    fit_pca,
    image_size,
    pca_colors,
    read_pixels,
    save_png,
    to_uint8,
)
from utils.log import bar

Draw = Callable[[Camera], dict[str, Tensor]]

PCA_VIEWS = 8  # enough to see every object of a scene at least once
CONCAT = ("gt", "renders", "gt_objects_color", "objects_pred", "objects_feature16")
FRAMES_PER_SECOND = 10


def fit_identity_colors(cameras: Sequence[Camera], render_identity: IdentityRenderer) -> PcaColors:
    """ONE principal component analysis for all views of a scene, from evenly spaced cameras.

    A fit per view, as in Gaussian Grouping, gives an object another colour in every picture.
    """
    chosen = np.linspace(0, len(cameras) - 1, min(PCA_VIEWS, len(cameras))).round().astype(int)
    return fit_pca(render_identity(cameras[index]) for index in chosen)


def view_pictures(
    camera: Camera, drawn: dict[str, Tensor], classifier: nn.Conv2d, colors: PcaColors
) -> dict[str, Tensor]:
    """All pictures of one view by folder: uint8 (3, H, W); `objects_id` is int64 (H, W)."""
    features = drawn["render_object"]
    ids = identify(map_encodings(features), classifier)
    pictures = {
        "renders": to_uint8(drawn["render"]),
        "gt": to_uint8(camera.original_image),
        "objects_feature16": to_uint8(pca_colors(features, colors)),
        "objects_pred": colorize_ids(ids),
        "objects_id": ids,
    }
    if camera.objects is not None:
        pictures["gt_objects_color"] = colorize_ids(camera.objects)
    return pictures


def side_by_side(pictures: dict[str, Tensor], panels: Sequence[str]) -> Tensor:
    """Some pictures of a view in one row; a missing one is black, so that videos keep their width."""
    blank = torch.zeros_like(pictures["renders"], device="cpu")
    return torch.cat([pictures[name].cpu() if name in pictures else blank for name in panels], dim=2)


def write_views(
    folder: Path,
    cameras: Sequence[Camera],
    draw: Draw,
    classifier: nn.Conv2d,
    colors: PcaColors,
) -> None:
    """Renders every camera and writes its pictures below `folder`, replacing what was there."""
    clear_pictures(folder.glob("*/*.png"))
    masked = any(camera.is_masked for camera in cameras)
    panels = [name for name in CONCAT if masked or name != "gt_objects_color"]
    for index, camera in enumerate(bar(cameras, str(folder))):
        pictures = view_pictures(camera, draw(camera), classifier, colors)
        pictures["concat"] = side_by_side(pictures, panels)
        for name, picture in pictures.items():
            path = folder / name / f"{index:05d}.png"
            if name == "objects_id":
                write_id_map(path, picture.cpu().numpy())
            else:
                save_png(path, picture)


def write_renders(folder: Path, cameras: Sequence[Camera], draw: Draw) -> None:
    """Renders every camera and writes the colour pictures alone into `folder`, replacing what was there."""
    clear_pictures(folder.glob("*.png"))
    for index, camera in enumerate(bar(cameras, str(folder))):
        save_png(folder / f"{index:05d}.png", draw(camera)["render"])


def clear_pictures(paths: Iterable[Path]) -> None:
    """Removes an earlier command's pictures: it may have had more views, and they would be scored too."""
    for path in list(paths):
        path.unlink()


def require_video() -> None:
    """Raises:
    UserError: the package that writes videos is not installed.
    """
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError("--video needs the package imageio-ffmpeg. Install it: pip install '.[video]'")


def write_video(path: Path, frames: Iterable[Path]) -> None:
    """Writes pictures of one size, in order, as an mp4.

    Odd edges lose a row or column: H.264 stores colours for pairs of pixels.
    """
    from imageio_ffmpeg import write_frames

    paths = list(frames)
    width, height = (edge - edge % 2 for edge in image_size(paths[0]))
    with atomic_write(path) as temporary:
        writer = write_frames(str(temporary), (width, height), fps=FRAMES_PER_SECOND, macro_block_size=2)
        writer.send(None)
        for frame in paths:
            writer.send(read_pixels(frame)[:height, :width].tobytes())
        writer.close()
