"""`.glb` files: binary glTF with the extension KHR_gaussian_splatting.

The extension stores points with float attributes: linear standard deviations, opacity in [0, 1], rotation
x y z w, and one attribute for each SH coefficient. glTF's up is +y, a scene's is its own: a rotation of the
node stands the scene upright, and the attributes stay in the scene's frame.
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scene.formats.gltf import Gltf, read_glb_file
from scene.formats.stored import model_of, numpy_of, opacity_of_share
from utils.errors import UserError
from utils.files import atomic_write
from utils.sh import SH2RGB

EXTENSION = "KHR_gaussian_splatting"
POINTS = 0
ARRAY_BUFFER = 34962
MAGIC, JSON_CHUNK, BINARY_CHUNK = b"glTF", b"JSON", b"BIN\0"
FLOAT, UNSIGNED_BYTE = 5126, 5121
SHAPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


class Attribute(NamedTuple):
    """One attribute of the points: values (N, k) float32, or bytes that stand for 0 to 1."""

    name: str
    values: np.ndarray


def write_glb(
    path: str | os.PathLike[str], params: Mapping[str, Tensor], up: Sequence[float] = (0.0, 1.0, 0.0)
) -> None:
    """Write a model, rows in its order, atomically. `up` (3,) is the direction upwards in the scene."""
    attributes = list(_attributes(params))
    blocks = [attribute.values.tobytes() for attribute in attributes]  # all are whole numbers of 4 bytes
    text = json.dumps(_description(attributes, up), separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    size = sum(map(len, blocks))
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<4sII", MAGIC, 2, 12 + 8 + len(text) + 8 + size))
        file.write(struct.pack("<I4s", len(text), JSON_CHUNK) + text)
        file.write(struct.pack("<I4s", size, BINARY_CHUNK))
        for block in blocks:
            file.write(block)


def _attributes(params: Mapping[str, Tensor]) -> Iterator[Attribute]:
    sh = torch.cat([params["f_dc"], params["f_rest"]], 1)  # (N, (degree + 1)^2, 3)
    opacity = params["opacity"].sigmoid()
    yield Attribute("POSITION", _floats(params["xyz"]))
    shown = torch.cat([SH2RGB(sh[:, 0]), opacity], 1)  # where the extension is not known
    yield Attribute("COLOR_0", numpy_of((shown * 255).round().clamp(0, 255).to(torch.uint8)))
    turn = torch.nn.functional.normalize(params["rotation"])
    yield Attribute(f"{EXTENSION}:ROTATION", _floats(turn.roll(-1, 1)))  # x y z w
    yield Attribute(f"{EXTENSION}:SCALE", _floats(params["scaling"].exp()))
    yield Attribute(f"{EXTENSION}:OPACITY", _floats(opacity))
    for index, name in enumerate(_coefficients(math.isqrt(sh.shape[1]) - 1)):
        yield Attribute(name, _floats(sh[:, index]))


def _coefficients(degree: int) -> list[str]:
    return [
        f"{EXTENSION}:SH_DEGREE_{band}_COEF_{index}"
        for band in range(degree + 1)
        for index in range(2 * band + 1)
    ]


def _floats(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(numpy_of(values), dtype="<f4")


def _description(attributes: Sequence[Attribute], up: Sequence[float]) -> dict[str, Any]:
    """The JSON of a file in which the attributes follow each other."""
    sizes = [attribute.values.nbytes for attribute in attributes]
    starts = np.cumsum([0, *sizes]).tolist()
    accessors = [
        {"bufferView": index, "componentType": FLOAT, "count": len(values), "type": SHAPES[values.shape[1]]}
        for index, (_, values) in enumerate(attributes)
    ]
    for accessor, (name, values) in zip(accessors, attributes, strict=True):
        if values.dtype == np.uint8:
            accessor |= {"componentType": UNSIGNED_BYTE, "normalized": True}
        if name == "POSITION" and len(values):
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
    method = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    primitive = {
        "mode": POINTS,
        "attributes": {name: index for index, (name, _) in enumerate(attributes)},
        "extensions": {EXTENSION: method},
    }
    return {
        "asset": {"version": "2.0", "generator": "GradiSeg"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": _upright(up)}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": size, "target": ARRAY_BUFFER}
            for start, size in zip(starts, sizes, strict=False)
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }


def _upright(up: Sequence[float]) -> list[float]:
    """Quaternion x y z w that turns `up` to +y by the shortest way (about x if it is upside down)."""
    x, y, z = np.asarray(up, np.float64) / np.linalg.norm(up)
    if y < -1 + 1e-6:
        return [1.0, 0.0, 0.0, 0.0]
    turn = np.array([-z, 0.0, x, 1 + y])  # up x (0, 1, 0), and 1 + their cosine
    return (turn / np.linalg.norm(turn)).tolist()


def read_glb(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Model of a file with one field of Gaussians, on the CPU, in the frame of its points: rotations and
    scales of glTF's nodes are not applied.

    Older drafts of the extension stored logarithms of scales; they are known by a negative one.
    Raises:
        UserError: a malformed file, none or several fields, compressed ones, attributes that are missing.
    """
    gltf = read_glb_file(path)
    attributes = _field(gltf)

    def table(name: str) -> np.ndarray:
        if name not in attributes:
            raise UserError(f"{path}: no attribute {name}, which {EXTENSION} asks for. Export it again.")
        return gltf.accessor(attributes[name], name)

    degree = next((d for d in (3, 2, 1) if f"{EXTENSION}:SH_DEGREE_{d}_COEF_0" in attributes), 0)
    columns = {name: table(f"{EXTENSION}:{name}") for name in ("ROTATION", "SCALE", "OPACITY")}
    columns["POSITION"] = table("POSITION")
    coefficients = [table(name) for name in _coefficients(degree)]
    widths = {"POSITION": 3, "ROTATION": 4, "SCALE": 3, "OPACITY": 1}
    shapes = {values.shape for values in coefficients} | {(len(columns["POSITION"]), 3)}
    if len(shapes) > 1 or any(
        columns[name].shape != (len(columns["POSITION"]), width) for name, width in widths.items()
    ):
        raise UserError(f"{path}: attributes of {EXTENSION} with unequal counts or types. Export it again.")
    scale = columns["SCALE"]
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.exp(scale) if (scale < 0).any() else scale
    return model_of(
        path,
        xyz=columns["POSITION"],
        sh=np.stack(coefficients, 1),
        opacity=opacity_of_share(columns["OPACITY"]),
        scale=scale,
        rotation=np.roll(columns["ROTATION"], 1, 1),
    )


def _field(gltf: Gltf) -> dict[str, int]:
    """Attributes of the only primitive that holds Gaussians."""
    found = [
        primitive
        for mesh in gltf.objects(gltf.json, "meshes")
        for primitive in gltf.objects(mesh, "primitives")
        if EXTENSION in gltf.member(primitive, "extensions")
    ]
    if len(found) != 1:
        raise UserError(
            f"{gltf.path}: {len(found)} primitives of {EXTENSION}; one can be read. Export one at a time."
        )
    inner = gltf.member(gltf.member(gltf.member(found[0], "extensions"), EXTENSION), "extensions")
    if inner:
        raise UserError(f"{gltf.path}: compressed by {', '.join(inner)[:80]}. Export it uncompressed.")
    return gltf.member(found[0], "attributes")
