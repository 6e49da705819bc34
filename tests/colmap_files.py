"""COLMAP's files, written for the tests: no product code writes them."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scene.colmap import PARTS, ColmapModel


def write_model(folder: str | os.PathLike[str], model: ColmapModel, text: bool = False) -> None:
    """Write the three files of `model`, binary or text, with every camera as PINHOLE."""
    write = _write_text if text else _write_binary
    Path(folder).mkdir(parents=True, exist_ok=True)
    for part, content in zip(PARTS, write(model), strict=True):
        Path(folder, part + (".txt" if text else ".bin")).write_bytes(content)


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
