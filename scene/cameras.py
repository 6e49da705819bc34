"""A view as the renderer and the losses need it, and its loading.

Photographs stay uint8 and become float on access; `scene.pixels` says which stay in memory. Image,
intrinsics and mask are brought to the working resolution over one field of view, so that they stay aligned:
the image W x H becomes W' x H', fx and cx scale by W'/W, fy and cy by H'/H, and the mask votes over the same
footprints.
"""

import copy
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from arguments import ModelParams
from scene.checks import ids_without_class
from scene.masks import read_id_map, resize_id_map
from scene.pixels import Pixels, PixelStore
from scene.views import CameraInfo
from utils.errors import UserError
from utils.graphics import focal2fov, projection, world_view
from utils.image import open_image, to_rgb

ZNEAR, ZFAR = 0.01, 100.0  # 3DGS's; only full_proj_transform's depth depends on them
DIVISORS = (1, 2, 4, 8)
MAX_DEFAULT_WIDTH = 1600  # pixels; wider photographs are reduced unless -r says otherwise


class Projected(NamedTuple):
    """Points in an image, (N,) each: pixels from its left and its top edge, and the depth along the axis.

    `inside`, bool: before the camera and in the image, so that x and y, rounded down, are column and row.
    """

    x: torch.Tensor
    y: torch.Tensor
    depth: torch.Tensor
    inside: torch.Tensor


class Camera:
    """A view; see `utils.graphics` for the conventions of its matrices.

    Args:
        uid: index among the views of its split.
        image_name: name below the image folder, without suffix.
        fx, fy, cx, cy: pixels at `width` x `height`; (cx, cy) in COLMAP's convention (centre = width / 2).
        R, T: camera-to-world rotation (3,3), world-to-camera translation (3,).
        image_uint8: (3,H,W) uint8 or None for a view to render only.
        objects: id map (H,W) integer or None.
    """

    def __init__(
        self,
        uid: int,
        image_name: str,
        width: int,
        height: int,
        fx: float,
        fy: float,
        cx: float,
        cy: float,
        R: np.ndarray,
        T: np.ndarray,
        image_uint8: torch.Tensor | None = None,
        objects: torch.Tensor | None = None,
    ) -> None:
        for pixels in (image_uint8, objects):
            if pixels is not None and tuple(pixels.shape[-2:]) != (height, width):
                raise ValueError(
                    f"{image_name}: pixels {tuple(pixels.shape)} for a camera of {width}x{height}"
                )
        self.uid = uid
        self.image_name = image_name
        self.image_width, self.image_height = width, height
        self.fx, self.fy, self.cx, self.cy = fx, fy, cx, cy
        self.FoVx, self.FoVy = focal2fov(fx, width), focal2fov(fy, height)
        self.R, self.T = R, T
        self.znear, self.zfar = ZNEAR, ZFAR
        self._pixels = Pixels(image_uint8, objects)
        self._source: tuple[PixelStore, Callable[[], Pixels]] | None = None  # of pixels not in memory
        self.world_view_transform = world_view(R, T)  # (4, 4)
        self.projection_matrix = projection(fx, fy, cx, cy, width, height, ZNEAR, ZFAR)  # (4, 4)
        self.full_proj_transform = self.world_view_transform @ self.projection_matrix  # (4, 4)
        self.camera_center = torch.tensor(-R @ T, dtype=torch.float32)  # (3,)

    @property
    def pixels(self) -> Pixels:
        """Photograph and id map, read now where they are not in memory."""
        if self._source is None:
            return self._pixels
        store, load = self._source
        return store.read(load).result()

    @property
    def image_uint8(self) -> torch.Tensor | None:
        """Photograph (3,H,W) uint8, None for a view to render only."""
        return self.pixels.photograph

    @property
    def objects(self) -> torch.Tensor | None:
        """Id map (H,W) integer, None where the view has none."""
        return self.pixels.objects

    @property
    def original_image(self) -> torch.Tensor:
        """Photograph (3,H,W) float32 in [0,1], on the device of the matrices."""
        photograph = self.image_uint8
        if photograph is None:
            raise ValueError(f"{self.image_name}: a camera without a photograph")
        return photograph.to(self.world_view_transform.device, non_blocking=True).float() / 255.0

    def leave_pixels_to(self, store: PixelStore, load: Callable[[], Pixels]) -> None:
        """Hold no pixels any more; `store` reads them by `load` when they are asked for."""
        self._pixels, self._source = Pixels(None, None), (store, load)

    def prefetch(self) -> None:
        """Begin to read the pixels, where they are not in memory."""
        if self._source is not None:
            store, load = self._source
            store.read(load)

    @property
    def is_masked(self) -> bool:
        """Whether the view has an id map."""
        return self.objects is not None

    def project(self, points: torch.Tensor) -> Projected:
        """Where points (N,3) of the world land in the image."""
        pose = self.world_view_transform.to(points)  # points as row vectors
        x, y, depth = (points @ pose[:3, :3] + pose[3, :3]).unbind(1)
        x, y = x / depth * self.fx + self.cx, y / depth * self.fy + self.cy
        inside = (depth > 0) & (x >= 0) & (x < self.image_width) & (y >= 0) & (y < self.image_height)
        return Projected(x, y, depth, inside)

    def unproject(self, x: torch.Tensor, y: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """The points (N,3) of the world that `project` puts at x, y, depth (N,)."""
        pose = self.world_view_transform.to(depth)  # points as row vectors
        x, y = (x.to(depth) - self.cx) / self.fx * depth, (y.to(depth) - self.cy) / self.fy * depth
        return (torch.stack([x, y, depth], 1) - pose[3, :3]) @ pose[:3, :3].T

    def at_resolution(self, width: int, height: int) -> "Camera":
        """The same view at another size, without pixels, to be rendered only."""
        x, y = width / self.image_width, height / self.image_height
        intrinsics = (self.fx * x, self.fy * y, self.cx * x, self.cy * y)
        camera = Camera(self.uid, self.image_name, width, height, *intrinsics, self.R, self.T)
        return camera.with_matrices_on(self.world_view_transform.device)

    def to(self, device: torch.device | str) -> "Camera":
        """A copy whose matrices and pixels are on `device`."""
        camera = self.with_matrices_on(device)
        camera._pixels, camera._source = self.pixels.to(device), None
        return camera

    def with_matrices_on(self, device: torch.device | str) -> "Camera":
        """A copy whose matrices are on `device`; its pixels stay where they are."""
        camera = copy.copy(self)
        for name in ("world_view_transform", "projection_matrix", "full_proj_transform", "camera_center"):
            setattr(camera, name, getattr(self, name).to(device))
        return camera


def target_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Working size of an image under `-r`: 1, 2, 4, 8 divide it, a larger number is its width, -1 caps it."""
    if resolution in DIVISORS:
        factor = float(resolution)
    elif resolution == -1:
        factor = max(1.0, width / MAX_DEFAULT_WIDTH)
    else:
        factor = width / resolution
    return max(1, round(width / factor)), max(1, round(height / factor))


def load_camera(info: CameraInfo, uid: int, args: ModelParams, pin: bool = False) -> Camera:
    """Read a view's photograph and mask at the working resolution of `args`; `pin`: into page-locked memory.

    Raises:
        UserError: a file cannot be read, or the mask holds an id without a class.
    """
    pixels = load_pixels(info, args, pin)
    assert pixels.photograph is not None
    height, width = pixels.photograph.shape[1:]
    x, y = width / info.width, height / info.height
    intrinsics = (info.fx * x, info.fy * y, info.cx * x, info.cy * y)
    return Camera(
        uid, info.image_name, width, height, *intrinsics, info.R, info.T, pixels.photograph, pixels.objects
    )


def load_pixels(info: CameraInfo, args: ModelParams, pin: bool = False) -> Pixels:
    """The pixels of `load_camera`'s camera."""
    photograph = _read_photograph(info.image_path, args.white_background)
    width, height = target_size(*photograph.size, args.resolution)
    image = np.asarray(resize_image(photograph, width, height)).transpose(2, 0, 1)  # (3, H, W)
    objects = None
    if info.mask_path:
        ids = read_id_map(info.mask_path)
        if problem := ids_without_class(info.mask_path, int(ids.max(initial=0)), args.num_classes):
            raise UserError(problem)
        objects = torch.from_numpy(_smallest(resize_id_map(ids, width, height)))
    # NumPy's copy: torch's would start a second set of OpenMP threads in the thread that reads ahead
    pixels = Pixels(torch.from_numpy(np.ascontiguousarray(image)), objects).to(args.data_device)
    return pixels.pinned() if pin else pixels


def resize_image(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize over the same field of view: the mean of the block for integer factors, Lanczos otherwise."""
    if image.size == (width, height):
        return image
    is_block = image.width % width == 0 and image.height % height == 0
    if is_block:
        return image.reduce((image.width // width, image.height // height))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _read_photograph(path: str | os.PathLike[str], white_background: bool) -> Image.Image:
    """RGB image of a file; transparency lets the background through."""
    with open_image(path) as file:
        file.load()
        if ("A" not in file.getbands() and "transparency" not in file.info) or file.mode.startswith("I"):
            return to_rgb(file)
        background = Image.new("RGBA", file.size, "white" if white_background else "black")
        return Image.alpha_composite(background, file.convert("RGBA")).convert("RGB")


def _smallest(ids: np.ndarray) -> np.ndarray:
    """Ids in the smallest of uint8, int16, int32: masks stay in memory for the whole run."""
    largest = ids.max(initial=0)
    return ids.astype(np.uint8 if largest < 2**8 else np.int16 if largest < 2**15 else np.int32)
