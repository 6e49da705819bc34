"""COLMAP sparse models, binary and text: cameras, images and points3D, after COLMAP's documented file format.

Poses are world-to-camera, x_camera = R(qvec) x_world + tvec, qvec = (w, x, y, z). Only pinhole cameras are
known, because Gaussians are drawn with straight rays; a camera whose distortion is 0 is one. Keypoints are
read by `read_observations` alone, tracks not at all.

Why not pycolmap, which `convert.py` uses: it is 135 MB that training does not need; of a hand-written
`images.txt` without keypoint lines it drops every second image without a word; a forged count makes it ask
for that much memory; and its errors name its source lines, not the file's. Here every field of a text file is
checked, a count is held against the file's size before anything is allocated, and memory stays below sixteen
times the file's size.
"""

import os
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from utils.errors import UserError
from utils.files import read_lines

PARTS = ("cameras", "images", "points3D")
SUFFIXES = (".bin", ".txt")
KEYPOINT = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])  # point: id in points3D, -1 = none


class CameraModel(NamedTuple):
    """One of COLMAP's camera models: focal lengths first, then the principal point, then distortion."""

    name: str
    focal_lengths: int
    parameters: int
    is_pinhole: bool  # with a distortion of 0


MODELS = {  # by COLMAP's number
    0: CameraModel("SIMPLE_PINHOLE", 1, 3, True),
    1: CameraModel("PINHOLE", 2, 4, True),
    2: CameraModel("SIMPLE_RADIAL", 1, 4, True),
    3: CameraModel("RADIAL", 1, 5, True),
    4: CameraModel("OPENCV", 2, 8, True),
    5: CameraModel("OPENCV_FISHEYE", 2, 8, False),
    6: CameraModel("FULL_OPENCV", 2, 12, True),
    7: CameraModel("FOV", 2, 5, False),
    8: CameraModel("SIMPLE_RADIAL_FISHEYE", 1, 4, False),
    9: CameraModel("RADIAL_FISHEYE", 1, 5, False),
    10: CameraModel("THIN_PRISM_FISHEYE", 2, 12, False),
    11: CameraModel("RAD_TAN_THIN_PRISM_FISHEYE", 2, 16, False),  # from here on of COLMAP 4
    12: CameraModel("SIMPLE_DIVISION", 1, 4, True),
    13: CameraModel("DIVISION", 2, 5, True),
    14: CameraModel("SIMPLE_FISHEYE", 1, 3, False),
    15: CameraModel("FISHEYE", 2, 4, False),
    16: CameraModel("EUCM", 2, 6, False),
    17: CameraModel("EQUIRECTANGULAR", 0, 2, False),
}
POSE_FIELDS = ("IMAGE_ID", "QW", "QX", "QY", "QZ", "TX", "TY", "TZ", "CAMERA_ID")  # then NAME
POINT_FIELDS = ("POINT3D_ID", "X", "Y", "Z", "R", "G", "B")  # then ERROR and the track


@dataclass(frozen=True)
class ColmapCamera:
    """Intrinsics in pixels; the image covers [0, width] x [0, height]."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class ColmapImage:
    """A registered image: world-to-camera pose, its camera's id and its name below the image folder."""

    qvec: np.ndarray  # (4,) w x y z
    tvec: np.ndarray  # (3,)
    camera_id: int
    name: str


@dataclass(frozen=True)
class ColmapModel:
    """What a scene needs of a sparse model."""

    cameras: dict[int, ColmapCamera]
    images: dict[int, ColmapImage]
    points: np.ndarray  # (N, 3) float64
    colors: np.ndarray  # (N, 3) uint8


class Malformed(ValueError):
    """What is wrong with a file and where, but for its name; `remedy` where it is not the usual one."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.remedy = remedy


def read_model(folder: str | os.PathLike[str]) -> ColmapModel:
    """Read `cameras`, `images` and `points3D` (.bin, else .txt) of `folder`.

    Raises:
        UserError: a file is missing, truncated or malformed, a camera is no pinhole, two images share a name
            or a name leads out of the image folder.
    """
    cameras = _read_part(Path(folder), "cameras")
    images = _read_part(Path(folder), "images")
    points, colors = _read_part(Path(folder), "points3D")
    names: set[str] = set()
    for image in images.values():
        if image.camera_id not in cameras:
            raise UserError(
                f"{folder}: image {image.name} uses camera {image.camera_id}, which cameras.bin/.txt does "
                "not hold. Export the three files from one model."
            )
        if leads_outside(image.name):
            raise UserError(f"{folder}: image name {image.name!r} leads out of the image folder. Mend it.")
        if image.name in names:
            raise UserError(f"{folder}: two images are named {image.name}. Leave one of them out.")
        names.add(image.name)
    return ColmapModel(cameras, images, points, colors)


def leads_outside(name: str) -> bool:
    """Whether a path of another's file, on any system, is absolute, holds `..` or is no name at all."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    is_absolute = path.is_absolute() or bool(windows.anchor)
    return is_absolute or not path.name or "\0" in name or ".." in (*path.parts, *windows.parts)


def count_images(folder: Path) -> int:
    """Images in the model `folder`, by its header where it is binary; 0 where it is incomplete or broken."""
    try:
        if any(part_path(folder, part) is None for part in PARTS):
            return 0
        path = part_path(folder, "images")
        assert path is not None
        if path.suffix == ".txt":
            return len(_read_part(folder, "images"))
        with path.open("rb") as file:
            return int.from_bytes(file.read(8), "little")
    except (OSError, UserError):
        return 0


def read_observations(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Image name -> the keypoints (K,) of dtype `KEYPOINT` that belong to a point of the model.

    x, y are pixels, the first pixel's centre at (0.5, 0.5). Models that hold no tracks give empty arrays.

    Raises:
        UserError: as `read_model`.
    """
    keypoints: dict[str, np.ndarray] = _read_part(Path(folder), "images", _KEYPOINT_READERS)
    return {name: found[found["point"] >= 0] for name, found in keypoints.items()}


def read_point_ids(folder: str | os.PathLike[str]) -> np.ndarray:
    """COLMAP's ids (N,) int64 of `read_model`'s points, in their order: what `KEYPOINT` refers to."""
    ids: np.ndarray = _read_part(Path(folder), "points3D", _POINT_ID_READERS)
    return ids


def part_path(folder: Path, part: str) -> Path | None:
    """The binary file of `part`, else the text file, else None."""
    return next((path for suffix in SUFFIXES if (path := folder / (part + suffix)).is_file()), None)


def _read_part(folder: Path, part: str, readers: Mapping[str, Callable[[Path], Any]] | None = None) -> Any:
    path = part_path(folder, part)
    if path is None:
        raise UserError(
            f"{folder}: neither {part}.bin nor {part}.txt is there. Copy COLMAP's sparse model into it."
        )
    try:
        return (readers or _READERS[part])[path.suffix](path)
    except Malformed as error:
        remedy = "Mend that line." if path.suffix == ".txt" else "Export the model from COLMAP again."
        raise UserError(f"{path}: {error}. {error.remedy or remedy}") from error


def _camera(camera_id: int, model: CameraModel, width: int, height: int, params: list[float]) -> ColmapCamera:
    focal, rest = params[: model.focal_lengths], params[model.focal_lengths :]
    if not model.is_pinhole or any(rest[2:]):
        raise Malformed(
            f"camera {camera_id} has the model {model.name} with distortion, but Gaussians are drawn through "
            "pinholes",
            "Undistort the images first: convert.py --model, or colmap image_undistorter.",
        )
    return ColmapCamera(width, height, focal[0], focal[-1], rest[0], rest[1])


# Binary.


class _Bytes:
    """A binary file and the place up to which it has been read."""

    def __init__(self, path: Path) -> None:
        self.data, self.at = path.read_bytes(), 0

    def take(self, form: struct.Struct) -> tuple[Any, ...]:
        """The next values."""
        start = self._advance(form.size)
        return form.unpack_from(self.data, start)

    def name(self) -> str:
        """The next text, which ends with a zero byte."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise Malformed("a name does not end: the file is truncated")
        start = self._advance(end + 1 - self.at)
        try:
            return self.data[start:end].decode()
        except UnicodeDecodeError as error:
            raise Malformed("an image's name is no UTF-8 text") from error

    def count(self, smallest: int, what: str) -> int:
        """The next count, of things of `smallest` bytes or more each, all of which the file can hold."""
        (count,) = self.take(_COUNT)
        if count * smallest > len(self.data) - self.at:
            raise Malformed(f"truncated: its size does not allow for {count:,} {what}")
        return int(count)

    def table(self, dtype: np.dtype[Any], what: str) -> np.ndarray:
        """A count and as many records."""
        count = self.count(dtype.itemsize, what)
        start = self._advance(count * dtype.itemsize)
        return np.frombuffer(self.data, dtype, count, start) if count else np.empty(0, dtype)

    def end(self, what: str) -> None:
        """Raise unless everything has been read."""
        if self.at != len(self.data):
            raise Malformed(f"{len(self.data) - self.at:,} bytes follow the last of its {what}")

    def _advance(self, size: int) -> int:
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise Malformed("truncated")
        return start


_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<iiQQ")
_POSE = struct.Struct("<i7di")
_POINT = struct.Struct("<Q3d3Bd")
_TRACK = np.dtype("<i8")  # an image's id and a keypoint's index, of four bytes each


def _read_cameras_binary(path: Path) -> dict[int, ColmapCamera]:
    file, cameras = _Bytes(path), {}
    for _ in range(file.count(_CAMERA.size, "cameras")):
        camera_id, number, width, height = file.take(_CAMERA)
        if number not in MODELS:
            raise Malformed(f"camera {camera_id} has the unknown model number {number}")
        params = list(file.take(struct.Struct(f"<{MODELS[number].parameters}d")))
        cameras[camera_id] = _camera(camera_id, MODELS[number], width, height, params)
    file.end("cameras")
    return cameras


def _image_records(path: Path) -> Iterator[tuple[int, ColmapImage, np.ndarray]]:
    """Number, pose and keypoints of every image of a binary file."""
    file = _Bytes(path)
    for _ in range(file.count(_POSE.size + 9, "images")):
        image_id, *pose, camera_id = file.take(_POSE)
        image = ColmapImage(np.array(pose[:4]), np.array(pose[4:]), camera_id, file.name())
        yield image_id, image, file.table(KEYPOINT, f"keypoints of {image.name}")
    file.end("images")


def _read_images_binary(path: Path) -> dict[int, ColmapImage]:
    return _by_number((image_id, image) for image_id, image, _ in _image_records(path))


def _read_keypoints_binary(path: Path) -> dict[str, np.ndarray]:
    return {image.name: keypoints for _, image, keypoints in _image_records(path)}


def _read_points_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    file = _Bytes(path)
    count = file.count(_POINT.size + _COUNT.size, "points")
    points, colors = np.empty((count, 3)), np.empty((count, 3), np.uint8)
    for index in range(count):
        _, *points[index], red, green, blue, _ = file.take(_POINT)
        colors[index] = red, green, blue
        file.table(_TRACK, "images in a track")
    file.end("points")
    return points, colors


def _read_point_ids_binary(path: Path) -> np.ndarray:
    file = _Bytes(path)
    ids = np.empty(file.count(_POINT.size + _COUNT.size, "points"), np.uint64)
    for index in range(len(ids)):
        ids[index] = file.take(_POINT)[0]
        file.table(_TRACK, "images in a track")
    return ids.astype(np.int64)


# Text.


def _records(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The place and the fields of every line that is neither empty nor a comment."""
    for number, line in read_lines(path):
        if line and not line.startswith("#"):
            yield f"line {number}", line.split()


def _number(kind: type[Any], text: str, where: str, field: str) -> Any:
    try:
        value = kind(text)
        if kind is int and abs(value) >= 2**63:
            raise ValueError("too large")
        return value
    except ValueError as error:
        wanted = "an integer" if kind is int else "a number"
        raise Malformed(f"{where}: {field} must be {wanted}, not {text[:40]!r}") from error


def _read_cameras_text(path: Path) -> dict[int, ColmapCamera]:
    by_name, cameras = {model.name: model for model in MODELS.values()}, []
    for where, fields in _records(path):
        if len(fields) < 4:
            raise Malformed(f"{where}: needs CAMERA_ID, MODEL, WIDTH, HEIGHT and parameters")
        camera_id, width, height = (
            _number(int, fields[at], where, name)
            for at, name in ((0, "CAMERA_ID"), (2, "WIDTH"), (3, "HEIGHT"))
        )
        model = by_name.get(fields[1])
        if model is None:
            raise Malformed(f"{where}: unknown camera model {fields[1]!r}")
        if len(fields) - 4 != model.parameters:
            raise Malformed(
                f"{where}: {len(fields) - 4} camera parameters, {model.name} has {model.parameters}"
            )
        params = [_number(float, text, where, "a camera parameter") for text in fields[4:]]
        cameras.append((camera_id, _camera(camera_id, model, width, height, params)))
    return _by_number(cameras)


def _image_lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Place, pose and keypoints of every image.

    By the format every image has two lines, of which the second may be empty. Files written by hand leave
    empty second lines out, or put more empty lines between images; what a line is can be told from it.
    """
    pose, place = "", ""
    for number, line in read_lines(path):
        if line.startswith("#") or not line:
            continue
        if pose and _is_keypoints(line):
            yield place, pose, line
            pose = ""
            continue
        if pose:
            yield place, pose, ""
        pose, place = line, f"line {number}"
    if pose:
        yield place, pose, ""


def _is_keypoints(line: str) -> bool:
    """Whether a line is triples of X, Y and an integer POINT3D_ID, not a pose with a name behind it."""
    fields = line.split()
    return len(fields) % 3 == 0 and fields[2].lstrip("-").isdecimal() and fields[-1].lstrip("-").isdecimal()


def _pose(where: str, line: str) -> tuple[int, ColmapImage]:
    *fields, name = line.split(maxsplit=len(POSE_FIELDS))  # the name may hold spaces
    if len(fields) != len(POSE_FIELDS):
        raise Malformed(
            f"{where}: is neither an image ({' '.join(POSE_FIELDS)} NAME) nor the keypoints of the image "
            "before it (X Y POINT3D_ID, ...). Every image has two lines, the second may be empty"
        )
    kinds = (int, *[float] * 7, int)
    image_id, *pose, camera_id = (
        _number(kind, text, where, field)
        for kind, text, field in zip(kinds, fields, POSE_FIELDS, strict=True)
    )
    return image_id, ColmapImage(np.array(pose[:4]), np.array(pose[4:]), camera_id, name)


def _read_images_text(path: Path) -> dict[int, ColmapImage]:
    return _by_number(_pose(where, pose) for where, pose, _ in _image_lines(path))


def _read_keypoints_text(path: Path) -> dict[str, np.ndarray]:
    keypoints = {}
    for where, pose, line in _image_lines(path):
        fields = line.split()
        values = [
            _number(int if at % 3 == 2 else float, text, where, "a keypoint")
            for at, text in enumerate(fields)
        ]
        triples = zip(values[::3], values[1::3], values[2::3], strict=True)
        keypoints[_pose(where, pose)[1].name] = np.array(list(triples), dtype=KEYPOINT)
    return keypoints


def _point_records(path: Path) -> Iterator[tuple[int, list[float], list[int]]]:
    """Id, place and colour of every point."""
    for where, fields in _records(path):
        if len(fields) < len(POINT_FIELDS):
            raise Malformed(f"{where}: {len(fields)} fields, a point has {' '.join(POINT_FIELDS)} ERROR")
        point_id = _number(int, fields[0], where, "POINT3D_ID")
        place = [_number(float, text, where, "XYZ"[at]) for at, text in enumerate(fields[1:4])]
        color = [_number(int, text, where, "RGB"[at]) for at, text in enumerate(fields[4:7])]
        if not 0 <= min(color) <= max(color) <= 255:
            raise Malformed(f"{where}: R, G and B must be 0 to 255, not {' '.join(fields[4:7])}")
        yield point_id, place, color


def _read_points_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    points, colors = array("d"), bytearray()
    for _, place, color in _point_records(path):
        points.extend(place)
        colors.extend(color)
    return np.array(points).reshape(-1, 3), np.array(colors).reshape(-1, 3)


def _read_point_ids_text(path: Path) -> np.ndarray:
    return np.array([point_id for point_id, _, _ in _point_records(path)], dtype=np.int64)


def _by_number(records: Any) -> dict[int, Any]:
    """The records by their ids, each of which occurs once."""
    found: dict[int, Any] = {}
    for number, record in records:
        if number in found:
            raise Malformed(f"the id {number} occurs twice")
        found[number] = record
    return found


_READERS: dict[str, dict[str, Callable[[Path], Any]]] = {
    "cameras": {".bin": _read_cameras_binary, ".txt": _read_cameras_text},
    "images": {".bin": _read_images_binary, ".txt": _read_images_text},
    "points3D": {".bin": _read_points_binary, ".txt": _read_points_text},
}
_KEYPOINT_READERS = {".bin": _read_keypoints_binary, ".txt": _read_keypoints_text}
_POINT_ID_READERS = {".bin": _read_point_ids_binary, ".txt": _read_point_ids_text}
