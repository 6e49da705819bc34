"""Gaussians and point clouds as PLY files (binary, little endian).

Columns of a model: x y z nx ny nz f_dc_0..2 f_rest_0..44 (channel-major) opacity scale_0..2 rot_0..3
obj_dc_0..15, float32. In memory a model is a dict of float32 tensors: xyz (N,3), f_dc (N,1,3), f_rest (N,K,3)
with K = (degree+1)^2 - 1, opacity (N,1) logit, scaling (N,3) log, rotation (N,4) w x y z, obj_dc (N,1,16).

Files are always in the user's frame. A scene far from the origin (survey coordinates) trains in a frame of
its own, `origin` (3,) away: file = memory + origin. x y z of such a file are double, because the steps of
float32 are half a metre at 4,500,000.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from utils.errors import UserError
from utils.log import logger
from utils.ply_file import read_vertices, write_vertices
from utils.sh import SH2RGB

IDENTITY_DIM = 16
SH_REST_COUNTS = (0, 9, 24, 45)  # columns f_rest_* of degrees 0..3
NO_ORIGIN = np.zeros(3)
COLOR_COLUMNS = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ("f_dc_0", "f_dc_1", "f_dc_2"),  # a model of Gaussians
)
RANGES = (255.0, 65535.0)  # largest colour of 8 and of 16 bits
BRIGHTEST_FRACTION = 2.0  # float colours up to here are 0 to 1: no cloud of 0 to 255 is that dark
COLUMNS_SHOWN = 6
OPAQUE, FLAT = 30.0, -30.0  # what stands for the logit of an opacity of 1, for the logarithm of a size of 0
_REST = "f_rest_"


def write_ply(
    path: str | os.PathLike[str], params: Mapping[str, torch.Tensor], origin: np.ndarray = NO_ORIGIN
) -> None:
    """Write a model, identity encodings included, atomically."""
    identity = _columns("obj_dc_", params["obj_dc"].transpose(1, 2))
    _write_columns(path, {**_columns_3dgs(params, origin), **identity})


def export_3dgs_ply(
    path: str | os.PathLike[str], params: Mapping[str, torch.Tensor], origin: np.ndarray = NO_ORIGIN
) -> None:
    """Write a model as a standard 3DGS file, without `obj_dc`, which every 3DGS viewer opens."""
    _write_columns(path, _columns_3dgs(params, origin))


def read_ply(path: str | os.PathLike[str], origin: np.ndarray = NO_ORIGIN) -> dict[str, torch.Tensor]:
    """Model of a file of ours, of Gaussian Grouping or of 3DGS (any degree), on the CPU.

    A file without `obj_dc` gives identity encodings of zero; rows with NaN or Inf are left out. The log says
    either.
    Raises:
        UserError: not a PLY file, columns are missing, or no row is whole.
    """
    vertices = read_vertices(path)
    names = vertices.dtype.names or ()
    rest = sum(name.startswith(_REST) for name in names)
    if rest not in SH_REST_COUNTS:
        raise UserError(f"{path}: {rest} columns {_REST}*; spherical harmonics have one of {SH_REST_COUNTS}.")
    columns = {
        "xyz": ["x", "y", "z"],
        "f_dc": [f"f_dc_{i}" for i in range(3)],
        "f_rest": [f"{_REST}{i}" for i in range(rest)],
        "opacity": ["opacity"],
        "scaling": [f"scale_{i}" for i in range(3)],
        "rotation": [f"rot_{i}" for i in range(4)],
        "obj_dc": [f"obj_dc_{i}" for i in range(IDENTITY_DIM)],
    }
    if "obj_dc_0" not in names:
        logger.warning("%s: no columns obj_dc_*, so its identity encodings are zero.", path)
        del columns["obj_dc"]
    tables = {name: _stack(path, vertices, wanted) for name, wanted in columns.items()}
    if origin.any():
        tables["xyz"] = (_stack(path, vertices, columns["xyz"], np.float64) - origin).astype(np.float32)
    _bound(tables["opacity"], -OPAQUE, OPAQUE)
    _bound(tables["scaling"], FLAT, np.inf)
    params = {
        name: torch.from_numpy(table) for name, table in _without_broken_rows(path, columns, tables).items()
    }
    count = len(params["xyz"])
    params["f_dc"] = params["f_dc"].reshape(count, 1, 3)
    params["f_rest"] = params["f_rest"].reshape(count, 3, rest // 3).transpose(1, 2).contiguous()  # (N, K, 3)
    params["obj_dc"] = params.get("obj_dc", torch.zeros(count, IDENTITY_DIM)).reshape(count, 1, IDENTITY_DIM)
    return params


def write_point_cloud(
    path: str | os.PathLike[str], points: np.ndarray, colors: np.ndarray, origin: np.ndarray = NO_ORIGIN
) -> None:
    """Write points (N,3) with colours (N,3) in [0,1] as x y z nx ny nz red green blue, atomically."""
    bytes_ = np.clip(np.rint(colors * 255.0), 0, 255).astype(np.uint8)
    normals = np.zeros((len(points), 3), np.float32)
    _write_columns(
        path,
        {
            **_positions(points, origin),
            **{f"n{axis}": normals[:, index] for index, axis in enumerate("xyz")},
            **{name: bytes_[:, index] for index, name in enumerate(COLOR_COLUMNS[0])},
        },
    )


def read_point_cloud(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Points (N,3) float64 and colours (N,3) in [0,1] of a PLY file; grey where it has no colours.

    Colours have any of the names of `COLOR_COLUMNS`, and 8 bits, 16 bits or a range of 0 to 1.
    Raises:
        UserError: not a PLY file, no x y z, or colours outside those ranges.
    """
    vertices = read_vertices(path)
    return _stack(path, vertices, ("x", "y", "z"), np.float64), _colors(path, vertices)


def _positions(points: np.ndarray, origin: np.ndarray) -> dict[str, np.ndarray]:
    """Columns x y z: float32, or double of a scene that was recentred."""
    places = points.astype(np.float64) + origin if origin.any() else points.astype(np.float32)
    return {axis: places[:, index] for index, axis in enumerate("xyz")}


def _columns_3dgs(params: Mapping[str, torch.Tensor], origin: np.ndarray) -> dict[str, np.ndarray]:
    return {
        **_positions(params["xyz"].detach().cpu().numpy(), origin),
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


def _write_columns(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    vertices = np.empty(len(columns["x"]), dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        vertices[name] = column
    write_vertices(path, vertices)


def _stack(
    path: str | os.PathLike[str], vertices: np.ndarray, names: Sequence[str], dtype: type = np.float32
) -> np.ndarray:
    """Columns `names` as (N, len(names)); what float32 cannot hold becomes Inf."""
    missing = [name for name in names if name not in (vertices.dtype.names or ())]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}. It is not the file of a Gaussian model or point cloud."
        )
    table: np.ndarray = np.empty((len(vertices), len(names)), dtype=dtype)
    with np.errstate(over="ignore"):
        for index, name in enumerate(names):
            table[:, index] = vertices[name]
    return table


def _bound(table: np.ndarray, low: float, high: float) -> None:
    """Put limits in the place of infinities: other tools write an opacity of 1 or a size of 0 as it is."""
    table[np.isneginf(table)] = low
    table[np.isposinf(table)] = high


def _without_broken_rows(
    path: str | os.PathLike[str], columns: Mapping[str, list[str]], tables: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The parameters without the Gaussians that hold NaN or Inf, which nobody can draw; the log says so."""
    finite = np.logical_and.reduce([np.isfinite(table).all(axis=1) for table in tables.values()])
    if finite.all():
        return tables
    counts = {
        column: count
        for name, table in tables.items()
        for column, count in zip(columns[name], (~np.isfinite(table)).sum(axis=0), strict=True)
        if count
    }
    shown = ", ".join(f"{column} ({count})" for column, count in list(counts.items())[:COLUMNS_SHOWN])
    if not finite.any():
        raise UserError(f"{path}: every Gaussian holds NaN or Inf, in {shown}. Use an earlier model.")
    logger.warning(
        "%s: %d of %d Gaussians hold NaN or Inf and are left out, in %s.",
        path,
        (~finite).sum(),
        len(finite),
        shown,
    )
    return {name: table[finite] for name, table in tables.items()}


def _colors(path: str | os.PathLike[str], vertices: np.ndarray) -> np.ndarray:
    """Colours (N,3) in [0,1] of a point cloud, under any of their usual names and in any usual range."""
    names = vertices.dtype.names or ()
    columns = next((columns for columns in COLOR_COLUMNS if set(columns) <= set(names)), None)
    if columns is None:
        logger.warning("%s: no colours (red green blue), so its points start grey.", path)
        return np.full((len(vertices), 3), 0.5)
    colors = _stack(path, vertices, columns, np.float64)
    if columns[0] == "f_dc_0":
        return np.clip(SH2RGB(colors), 0.0, 1.0)
    is_float = all(vertices.dtype[name].kind == "f" for name in columns)
    largest = colors.max(initial=0.0)
    if not np.isfinite(colors).all() or colors.min(initial=0.0) < 0 or largest > RANGES[-1]:
        raise UserError(
            f"{path}: {' '.join(columns)} from {colors.min():g} to {largest:g}. Colours are 0 to 255 "
            "(uchar), 0 to 65535 (ushort) or 0 to 1 (float)."
        )
    if is_float and largest <= BRIGHTEST_FRACTION:
        return np.minimum(colors, 1.0)
    return colors / next(limit for limit in RANGES if largest <= limit)
