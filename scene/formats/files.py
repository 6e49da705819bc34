"""Gaussians of any file: the format of a file is told by its first bytes, that of a new one by its name."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from scene.formats.compressed import read_compressed
from scene.formats.glb import read_glb, write_glb
from scene.formats.splat import read_splat, write_splat
from scene.ply import NO_ORIGIN, export_3dgs_ply, read_ply, write_ply
from utils.errors import UserError

Writer = Callable[[str | os.PathLike[str], Mapping[str, Tensor]], None]
CONVERT = "npx @playcanvas/splat-transform makes a PLY file of most formats"
PACKED = b"packed_position"  # a column of compressed PLY
HEADER = 4096  # bytes in which it is looked for


class Format(NamedTuple):
    """How a format is called, how its files end, what it is."""

    name: str
    suffix: str
    what: str


FORMATS = {
    item.name: item
    for item in (
        Format("ply", ".ply", "3DGS, exact; every tool opens it"),
        Format("gradiseg", ".ply", "the same with identity encodings, as Gaussian Grouping's"),
        Format("splat", ".splat", "32 bytes a Gaussian, no view dependence; web viewers"),
        Format("glb", ".glb", "glTF with KHR_gaussian_splatting"),
    )
}


def write_gaussians(
    path: Path,
    params: Mapping[str, Tensor],
    name: str,
    up: Sequence[float] = (0.0, 1.0, 0.0),
    origin: np.ndarray = NO_ORIGIN,
) -> None:
    """Write a model in a format of `FORMATS`, rows in its order.

    `up` (3,) is the scene's, for .glb. `origin` (3,) is that of the model's frame (`scene.ply`): a PLY holds
    xyz + origin; .splat and .glb, which have no more than float32, hold xyz.
    """
    write: Mapping[str, Writer] = {
        "ply": partial(export_3dgs_ply, origin=origin),
        "gradiseg": partial(write_ply, origin=origin),
        "splat": write_splat,
        "glb": partial(write_glb, up=up),
    }
    write[name](path, params)


def read_gaussians(path: str | os.PathLike[str], origin: np.ndarray = NO_ORIGIN) -> dict[str, Tensor]:
    """The Gaussians of a file that we or other tools wrote; as in `GaussianModel.params`, on the CPU.

    PLY of any SH degree with any columns beside the usual ones, compressed PLY, `.splat`, `.glb` of
    KHR_gaussian_splatting.
    Identity encodings are zero where the file has none. `origin` as in `write_gaussians`.
    Raises:
        UserError: there is no such file, it has another format, is malformed, or holds no Gaussian.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: not there. Name a file of Gaussians: .ply, .splat or .glb.")
    with open(path, "rb") as file:
        start = file.read(HEADER)
    if start.startswith(b"ply") and PACKED in start:
        params = read_compressed(path, b"element sh" in start, origin)
    elif start.startswith(b"ply"):
        params = read_ply(path, origin)
    elif start.startswith(b"glTF"):
        params = read_glb(path)
    elif Path(path).suffix.lower() == ".splat":
        params = read_splat(path)
    else:
        raise UserError(f"{path}: neither PLY, .splat nor .glb. {CONVERT}.")
    if not len(params["xyz"]):
        raise UserError(f"{path}: holds no Gaussians. Choose another file.")
    return params
