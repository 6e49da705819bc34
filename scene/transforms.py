"""Cameras as JSON: Blender's `transforms_train.json`, Instant-NGP's and nerfstudio's `transforms.json`.

A file holds `frames` of `file_path` (relative to the file) and `transform_matrix`, camera to world with
OpenGL's axes. The lens is `fl_x fl_y cx cy w h` in pixels or `camera_angle_x` in radians, for all frames or
in each; what a frame says counts more, and pixels count more than angles. Without `w h` it is the picture's
own size, without `cx cy` its middle. A lens that distorts is refused. `applied_transform` needs no attention:
the points of such a scene went through it, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scene.colmap import leads_outside
from scene.names import Pictures, is_there, without_suffix
from scene.views import CameraInfo
from utils.errors import UserError
from utils.graphics import fov2focal
from utils.image import image_size
from utils.json_files import read_json

DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
LONGEST_SHOWN = 200  # characters of a path in a message
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE")


def read_transforms(
    path: Path, pictures: Pictures, folder: Path | None = None
) -> tuple[list[CameraInfo], dict[str, Any]]:
    """Views of a JSON file in the order of their paths, without masks, and the whole of the file.

    Pictures lie in `folder`, if not beside the file.

    Raises:
        UserError: names the file, the frame and the key.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise UserError(f"{path}: must hold one object with a list of frames.")
    frames = [_Frame(path, index, content, frame) for index, frame in enumerate(content["frames"])]
    frames.sort(key=lambda frame: frame.file_path)
    folder = folder or path.parent
    images = [pictures.find(folder / frame.file_path) for frame in frames]
    absent = [frame.file_path for frame, image in zip(frames, images, strict=True) if not is_there(image)]
    if absent:
        raise UserError(
            f"{path}: {absent[0][:LONGEST_SHOWN]} is not there, nor a picture of that name with another "
            f"suffix, in {folder} ({len(absent)} such frames). Copy it there, or mend file_path."
        )
    names = _view_names(path, [frame.file_path for frame in frames], images)
    views = [frame.view(name, image) for frame, name, image in zip(frames, names, images, strict=True)]
    return views, content


class _Frame:
    """One frame, with what the file says of all."""

    def __init__(self, path: Path, index: int, content: Mapping[str, Any], frame: Any) -> None:
        self.where = f"{path}: frame {index}"
        if not isinstance(frame, dict):
            raise UserError(f"{self.where} must be an object, not {frame!r:.40}.")
        self.given = {**content, **frame}
        file_path = frame.get("file_path")
        if not isinstance(file_path, str) or not file_path or "\0" in file_path:
            raise UserError(f"{self.where}: file_path must be the path of a picture, not {file_path!r:.40}.")
        self.file_path = file_path.replace("\\", "/")
        self.where += f" ({file_path})"
        self.camera_to_world = self._matrix(frame.get("transform_matrix"))
        self._refuse_distortion()

    def view(self, name: str, image: Path) -> CameraInfo:
        """The view of this frame, whose picture is `image`."""
        width, height = self._size(image)
        fx, fy = self._focal_lengths(width, height)
        R = self.camera_to_world[:3, :3] * np.array([1.0, -1.0, -1.0])  # OpenGL's y and z point the other way
        return CameraInfo(
            image_name=name,
            image_path=image,
            mask_path=None,
            R=R,
            T=-R.T @ self.camera_to_world[:3, 3],
            width=width,
            height=height,
            fx=fx,
            fy=fy,
            cx=self._number("cx", width / 2),
            cy=self._number("cy", height / 2),
        )

    def _matrix(self, rows: Any) -> np.ndarray:
        try:
            matrix = np.array(rows, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            matrix = np.empty(0)
        if matrix.shape not in ((4, 4), (3, 4)):
            raise UserError(f"{self.where}: transform_matrix must be 4x4 numbers, camera to world.")
        return matrix

    def _number(self, key: str, default: float | None = None) -> float:
        value = self.given.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
            raise UserError(f"{self.where}: {key} must be a number, not {value!r:.40}.")
        return float(value)

    def _size(self, image: Path) -> tuple[int, int]:
        if "w" not in self.given and "h" not in self.given:
            return image_size(image)
        width, height = self._number("w"), self._number("h")
        if width != int(width) or height != int(height) or min(width, height) < 1:
            raise UserError(f"{self.where}: w and h must be pixels, not {width:g} and {height:g}.")
        return int(width), int(height)

    def _focal_lengths(self, width: int, height: int) -> tuple[float, float]:
        """In pixels; pixels are square where only one is known."""
        pixels = {axis: self._number(f"fl_{axis}") for axis in "xy" if f"fl_{axis}" in self.given}
        angles = {
            axis: fov2focal(self._angle(axis), size)
            for axis, size in (("x", width), ("y", height))
            if f"camera_angle_{axis}" in self.given and not pixels
        }
        found = pixels or angles
        if not found:
            raise UserError(f"{self.where}: neither fl_x (pixels) nor camera_angle_x (radians) is given.")
        return found.get("x", found.get("y", 0.0)), found.get("y", found.get("x", 0.0))

    def _angle(self, axis: str) -> float:
        angle = self._number(f"camera_angle_{axis}")
        if not 0 < angle < np.pi:
            raise UserError(
                f"{self.where}: camera_angle_{axis} must be radians between 0 and pi, not {angle:g}."
            )
        return angle

    def _refuse_distortion(self) -> None:
        bent = [key for key in DISTORTION if key in self.given and self._number(key)]
        model = str(self.given.get("camera_model", "PINHOLE")).upper()
        if self.given.get("is_fisheye") or model not in PINHOLES:
            bent.append(f"camera_model {self.given.get('camera_model', 'fisheye')}")
        if bent:
            raise UserError(
                f"{self.where}: the lens distorts ({', '.join(bent)}), but Gaussians are drawn through "
                "pinholes. Undistort the pictures: convert.py --photos on the photographs, or colmap "
                "image_undistorter."
            )


def _view_names(path: Path, file_paths: list[str], images: list[Path]) -> list[str]:
    """Names of the views: the pictures' own, with their folders where two would be the same."""
    names = [without_suffix(image.name) for image in images]
    if len(set(names)) < len(names):
        names = [
            without_suffix((Path(file_path).parent / image.name).as_posix())
            for file_path, image in zip(file_paths, images, strict=True)
        ]
    double = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if double is not None:
        raise UserError(f"{path}: two frames have the picture {double}. Leave one of them out.")
    outside = next((name for name in names if leads_outside(name)), None)
    if outside is not None:
        raise UserError(f"{path}: file_path {outside!r} leads out of the scene. Mend it.")
    return names
