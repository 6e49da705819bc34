"""COLMAP sparse models, binary and text: cameras, images and points3D, after COLMAP's documented file format.

Poses are world-to-camera, x_camera = R(qvec) x_world + tvec, qvec = (w, x, y, z). Only pinhole cameras are
known, because Gaussians are drawn with straight rays. Keypoints are read by `read_observations` alone, tracks
not at all, and both are empty on writing.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write

PINHOLE_MODELS = {0: ("SIMPLE_PINHOLE", 3), 1: ("PINHOLE", 4)}  # COLMAP's number: name, number of parameters
PARTS = ("cameras", "images", "points3D")
KEYPOINT = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])  # point: id in points3D, -1 = none


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


def read_model(folder: str | os.PathLike[str]) -> ColmapModel:
    """Read `cameras`, `images` and `points3D` (.bin, else .txt) of `folder`.

    Raises:
        UserError: a file is missing, truncated or malformed, or a camera is no pinhole.
    """
    cameras = _read_part(Path(folder), "cameras")
    images = _read_part(Path(folder), "images")
    points, colors = _read_part(Path(folder), "points3D")
    for image in images.values():
        if image.camera_id not in cameras:
            raise UserError(
                f"{folder}: image {image.name} uses camera {image.camera_id}, which cameras.bin/.txt does "
                "not hold. Export the three files from one model."
            )
    return ColmapModel(cameras, images, points, colors)


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


def write_model(folder: str | os.PathLike[str], model: ColmapModel, text: bool = False) -> None:
    """Write the three files of `model`, binary or text, with every camera as PINHOLE."""
    write = _write_text if text else _write_binary
    for part, content in zip(PARTS, write(model), strict=True):
        with atomic_write(Path(folder, part + (".txt" if text else ".bin"))) as temporary:
            temporary.write_bytes(content)


def part_path(folder: Path, part: str) -> Path | None:
    """The binary file of `part`, else the text file, else None."""
    return next((path for suffix in (".bin", ".txt") if (path := folder / (part + suffix)).is_file()), None)


def _read_part(folder: Path, part: str, readers: Mapping[str, Callable[[Path], Any]] | None = None) -> Any:
    path = part_path(folder, part)
    if path is None:
        raise UserError(
            f"{folder}: neither {part}.bin nor {part}.txt is there. Copy COLMAP's sparse model into it."
        )
    try:
        return (readers or _READERS[part])[path.suffix](path)
    except UserError:
        raise
    except (struct.error, ValueError, IndexError) as error:
        raise UserError(
            f"{path}: truncated or malformed ({error}). Export the model from COLMAP again."
        ) from error


def _camera(
    path: Path, camera_id: int, model: str, width: int, height: int, params: list[float]
) -> ColmapCamera:
    counts = dict(PINHOLE_MODELS.values())
    if model not in counts:
        raise UserError(
            f"{path}: camera {camera_id} has the model {model}, but only PINHOLE and SIMPLE_PINHOLE can be "
            "used. Undistort the images first: convert.py --model, or colmap image_undistorter."
        )
    if len(params) != counts[model]:
        raise ValueError(f"camera {camera_id} has {len(params)} parameters, {model} has {counts[model]}")
    fx, fy, cx, cy = params if len(params) == 4 else (params[0], *params)
    return ColmapCamera(width, height, fx, fy, cx, cy)


def _read_cameras_binary(path: Path) -> dict[int, ColmapCamera]:
    data, cameras, at = path.read_bytes(), {}, 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        camera_id, number, width, height = struct.unpack_from("<iiQQ", data, at)
        model, count = PINHOLE_MODELS.get(number, (f"number {number} (COLMAP's numbering)", 0))
        params = list(struct.unpack_from(f"<{count}d", data, at + 24))
        cameras[camera_id] = _camera(path, camera_id, model, width, height, params)
        at += 24 + 8 * count
    return cameras


def _image_records(path: Path) -> Iterator[tuple[int, ColmapImage, np.ndarray]]:
    """Number, pose and keypoints of every image of a binary file."""
    data, at = path.read_bytes(), 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        image_id, *pose, camera_id = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode()
        (count,) = struct.unpack_from("<Q", data, end + 1)
        keypoints = np.frombuffer(data, KEYPOINT, count, end + 9) if count else np.empty(0, KEYPOINT)
        at = end + 9 + keypoints.nbytes
        yield image_id, ColmapImage(np.array(pose[:4]), np.array(pose[4:]), camera_id, name), keypoints


def _read_images_binary(path: Path) -> dict[int, ColmapImage]:
    return {image_id: image for image_id, image, _ in _image_records(path)}


def _read_keypoints_binary(path: Path) -> dict[str, np.ndarray]:
    return {image.name: keypoints for _, image, keypoints in _image_records(path)}


def _read_points_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data, at = path.read_bytes(), 8
    (count,) = struct.unpack_from("<Q", data)
    points, colors = [], []
    for _ in range(count):
        _, x, y, z, red, green, blue, _, track = struct.unpack_from("<Q3d3BdQ", data, at)
        points.append((x, y, z))
        colors.append((red, green, blue))
        at += 51 + 8 * track  # each image id, keypoint index
    return np.array(points, dtype=np.float64).reshape(-1, 3), np.array(colors, dtype=np.uint8).reshape(-1, 3)


def _read_point_ids_binary(path: Path) -> np.ndarray:
    data, at, ids = path.read_bytes(), 8, []
    for _ in range(struct.unpack_from("<Q", data)[0]):
        ids.append(struct.unpack_from("<Q", data, at)[0])
        at += 51 + 8 * struct.unpack_from("<Q", data, at + 43)[0]
    return np.array(ids, dtype=np.int64)


def _lines(path: Path) -> list[str]:
    return [
        line.strip() for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]


def _read_cameras_text(path: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for line in filter(None, _lines(path)):
        camera_id, model, width, height, *params = line.split()
        numbers = [float(value) for value in params]
        cameras[int(camera_id)] = _camera(path, int(camera_id), model, int(width), int(height), numbers)
    return cameras


def _image_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of lines: a pose and the keypoints, which may be an empty line."""
    lines = _lines(path)
    while lines and not lines[0]:
        lines.pop(0)
    yield from ((pose, points) for pose, points in zip_longest(lines[::2], lines[1::2], fillvalue="") if pose)


def _read_images_text(path: Path) -> dict[int, ColmapImage]:
    images = {}
    for line, _ in _image_lines(path):
        image_id, *numbers, camera_id, name = line.split(maxsplit=9)  # the name may hold spaces
        pose = np.array([float(value) for value in numbers])
        images[int(image_id)] = ColmapImage(pose[:4], pose[4:], int(camera_id), name)
    return images


def _read_keypoints_text(path: Path) -> dict[str, np.ndarray]:
    keypoints = {}
    for line, points in _image_lines(path):
        table = np.array(points.split(), dtype=np.float64).reshape(-1, 3)
        keypoints[line.split(maxsplit=9)[9]] = np.array([tuple(row) for row in table], dtype=KEYPOINT)
    return keypoints


def _read_points_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = [line.split()[1:7] for line in filter(None, _lines(path))]
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return table[:, :3].copy(), table[:, 3:].astype(np.uint8)


def _read_point_ids_text(path: Path) -> np.ndarray:
    return np.array([line.split(maxsplit=1)[0] for line in filter(None, _lines(path))], dtype=np.int64)


_READERS: dict[str, dict[str, Callable[[Path], Any]]] = {
    "cameras": {".bin": _read_cameras_binary, ".txt": _read_cameras_text},
    "images": {".bin": _read_images_binary, ".txt": _read_images_text},
    "points3D": {".bin": _read_points_binary, ".txt": _read_points_text},
}
_KEYPOINT_READERS = {".bin": _read_keypoints_binary, ".txt": _read_keypoints_text}
_POINT_ID_READERS = {".bin": _read_point_ids_binary, ".txt": _read_point_ids_text}


def _write_binary(model: ColmapModel) -> Iterator[bytes]:
    cameras = [
        struct.pack(
            "<iiQQ4d", key, 1, camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy
        )
        for key, camera in model.cameras.items()
    ]
    images = [
        struct.pack("<i7di", key, *image.qvec, *image.tvec, image.camera_id)
        + image.name.encode()
        + b"\0"
        + struct.pack("<Q", 0)
        for key, image in model.images.items()
    ]
    points = [
        struct.pack("<Q3d3BdQ", index + 1, *point, *color, 0.0, 0)
        for index, (point, color) in enumerate(zip(model.points, model.colors.tolist(), strict=True))
    ]
    for records in (cameras, images, points):
        yield struct.pack("<Q", len(records)) + b"".join(records)


def _write_text(model: ColmapModel) -> Iterator[bytes]:
    yield "".join(
        f"{key} PINHOLE {c.width} {c.height} {c.fx!r} {c.fy!r} {c.cx!r} {c.cy!r}\n"
        for key, c in model.cameras.items()
    ).encode()
    yield "".join(
        f"{key} {_numbers(image.qvec)} {_numbers(image.tvec)} {image.camera_id} {image.name}\n\n"
        for key, image in model.images.items()
    ).encode()
    yield "".join(
        f"{index + 1} {_numbers(point)} {red} {green} {blue} 0\n"
        for index, (point, (red, green, blue)) in enumerate(
            zip(model.points, model.colors.tolist(), strict=True)
        )
    ).encode()


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)
