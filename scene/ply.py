"""Gaussians and point clouds as PLY files (binary, little endian).

Columns of a model: x y z nx ny nz f_dc_0..2 f_rest_0..44 (channel-major) opacity scale_0..2 rot_0..3
obj_dc_0..15, float32. In memory a model is a dict of float32 tensors: xyz (N,3), f_dc (N,1,3), f_rest (N,K,3)
with K = (degree+1)^2 - 1, opacity (N,1) logit, scaling (N,3) log, rotation (N,4) w x y z, obj_dc (N,1,16).
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import plyfile
import torch

from utils.errors import UserError
from utils.files import atomic_write

logger = logging.getLogger("gradiseg")

IDENTITY_DIM = 16
SH_REST_COUNTS = (0, 9, 24, 45)  # columns f_rest_* of degrees 0..3
_REST = "f_rest_"


def write_ply(path: str | os.PathLike[str], params: Mapping[str, torch.Tensor]) -> None:
    """Write a model, identity encodings included, atomically."""
    _write_vertices(path, {**_columns_3dgs(params), **_columns("obj_dc_", params["obj_dc"].transpose(1, 2))})


def export_3dgs_ply(path: str | os.PathLike[str], params: Mapping[str, torch.Tensor]) -> None:
    """Write a model as a standard 3DGS file, without `obj_dc`, which every 3DGS viewer opens."""
    _write_vertices(path, _columns_3dgs(params))


def read_ply(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Model of a file of ours, of Gaussian Grouping or of 3DGS (any degree), on the CPU.

    A file without `obj_dc` gives identity encodings of zero, and the log says so.
    Raises:
        UserError: not a PLY file, or columns are missing.
    """
    vertices = _read_vertices(path)
    names = vertices.dtype.names or ()
    rest = sum(name.startswith(_REST) for name in names)
    if rest not in SH_REST_COUNTS:
        raise UserError(f"{path}: {rest} columns {_REST}*; spherical harmonics have one of {SH_REST_COUNTS}.")
    n = len(vertices)
    params = {
        "xyz": _stack(path, vertices, ["x", "y", "z"]),
        "f_dc": _stack(path, vertices, [f"f_dc_{i}" for i in range(3)]).reshape(n, 1, 3),
        "f_rest": _stack(path, vertices, [f"{_REST}{i}" for i in range(rest)])
        .reshape(n, 3, rest // 3)
        .transpose(1, 2)
        .contiguous(),  # (N, K, 3)
        "opacity": _stack(path, vertices, ["opacity"]),
        "scaling": _stack(path, vertices, [f"scale_{i}" for i in range(3)]),
        "rotation": _stack(path, vertices, [f"rot_{i}" for i in range(4)]),
    }
    if "obj_dc_0" in names:
        params["obj_dc"] = _stack(path, vertices, [f"obj_dc_{i}" for i in range(IDENTITY_DIM)]).reshape(
            n, 1, IDENTITY_DIM
        )
    else:
        logger.warning("%s: no columns obj_dc_*, so its identity encodings are zero.", path)
        params["obj_dc"] = torch.zeros(n, 1, IDENTITY_DIM)
    return params


def write_point_cloud(path: str | os.PathLike[str], points: np.ndarray, colors: np.ndarray) -> None:
    """Write points (N,3) with colours (N,3) in [0,1] as x y z nx ny nz red green blue, atomically."""
    floats = ["x", "y", "z", "nx", "ny", "nz"]
    channels = ["red", "green", "blue"]
    vertices = np.zeros(len(points), dtype=[(n, "<f4") for n in floats] + [(n, "u1") for n in channels])
    for axis in range(3):
        vertices[floats[axis]] = points[:, axis]
        vertices[channels[axis]] = np.clip(np.rint(colors[:, axis] * 255.0), 0, 255)
    _save(path, vertices)


def read_point_cloud(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Points (N,3) float64 and colours (N,3) in [0,1] of a PLY file; grey where it has no colours."""
    vertices = _read_vertices(path)
    points = _stack(path, vertices, ["x", "y", "z"]).double().numpy()
    if "red" not in (vertices.dtype.names or ()):
        return points, np.full_like(points, 0.5)
    return points, _stack(path, vertices, ["red", "green", "blue"]).double().numpy() / 255.0


def _columns_3dgs(params: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {
        **_columns("", params["xyz"], "xyz"),
        **_columns("n", torch.zeros_like(params["xyz"]), "xyz"),  # unused, but 3DGS viewers expect normals
        **_columns("f_dc_", params["f_dc"].transpose(1, 2)),
        **_columns(_REST, params["f_rest"].transpose(1, 2)),  # channel-major: all of red first
        "opacity": params["opacity"].detach().cpu().numpy()[:, 0],
        **_columns("scale_", params["scaling"]),
        **_columns("rot_", params["rotation"]),
    }


def _columns(prefix: str, values: torch.Tensor, suffixes: str = "") -> dict[str, np.ndarray]:
    """Columns `prefix` + suffix (0, 1, ... if none given) of values (N, ...)."""
    table = values.detach().cpu().flatten(1).numpy()  # (N, columns)
    return {f"{prefix}{suffixes[i] if suffixes else i}": table[:, i] for i in range(table.shape[1])}


def _write_vertices(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    vertices = np.empty(len(columns["x"]), dtype=[(name, "<f4") for name in columns])
    for name, column in columns.items():
        vertices[name] = column
    _save(path, vertices)


def _save(path: str | os.PathLike[str], vertices: np.ndarray) -> None:
    with atomic_write(path) as temporary:
        plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")], byte_order="<").write(
            str(temporary)
        )


def _read_vertices(path: str | os.PathLike[str]) -> np.ndarray:
    if not Path(path).is_file():
        raise UserError(f"{path}: not there. Check the folder, or train first.")
    try:
        vertices: np.ndarray = plyfile.PlyData.read(str(path))["vertex"].data
    except (plyfile.PlyParseError, KeyError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as a PLY file of vertices ({error}). Write or copy it again."
        ) from error
    return vertices


def _stack(path: str | os.PathLike[str], vertices: np.ndarray, names: list[str]) -> torch.Tensor:
    """Columns `names` as (N, len(names)) float32."""
    missing = [name for name in names if name not in (vertices.dtype.names or ())]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}. It is not the file of a Gaussian model or point cloud."
        )
    table = np.empty((len(vertices), len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        table[:, index] = vertices[name]
    return torch.from_numpy(table)
