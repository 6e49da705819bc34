"""Compressed PLY, as SuperSplat writes it: 16 bytes a Gaussian, and a byte for each SH coefficient.

256 Gaussians at a time share a row of the element `chunk`, with the least and the largest value of each
quantity. Between these lie fractions: `packed_position` and `packed_scale` (logarithms) of 11, 10 and 11 bits
for x, y, z; `packed_color` of 8 bits for red, green, blue, and the opacity. `packed_rotation` says in 2 bits
which of w x y z is the largest, and has 10 bits for each of the others, from -1/sqrt(2) to 1/sqrt(2). The
element `sh` has the coefficients of the higher bands, from -4 to 4.
"""

import os

import numpy as np
from torch import Tensor

from scene.formats.stored import model_of, opacity_of_share
from scene.ply import NO_ORIGIN, SH_REST_COUNTS
from utils.errors import UserError
from utils.ply_file import read_vertices
from utils.sh import RGB2SH

CHUNK = 256
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
RANGES = {
    "position": ("min_x", "min_y", "min_z", "max_x", "max_y", "max_z"),
    "scale": ("min_scale_x", "min_scale_y", "min_scale_z", "max_scale_x", "max_scale_y", "max_scale_z"),
    "color": ("min_r", "min_g", "min_b", "max_r", "max_g", "max_b"),
}
SH_RANGE, SH_STEPS = 8.0, 256


def read_compressed(
    path: str | os.PathLike[str], has_sh: bool, origin: np.ndarray = NO_ORIGIN
) -> dict[str, Tensor]:
    """Model of a file, on the CPU; `has_sh`: whether it has the element `sh`; `origin` as in `read_ply`.

    Raises:
        UserError: a file that is malformed, or columns that are missing.
    """
    chunks, rows = read_vertices(path, "chunk"), read_vertices(path)
    _check(path, chunks, (*RANGES["position"], *RANGES["scale"]))
    _check(path, rows, PACKED)
    count = len(rows)
    if len(chunks) * CHUNK < count:
        raise UserError(f"{path}: {len(chunks):,} chunks for {count:,} Gaussians. Export it again.")
    words = {name: rows[name].astype(np.uint32) for name in PACKED}
    color = _fractions(words["packed_color"], (8, 8, 8, 8))
    has_color = set(RANGES["color"]) <= set(chunks.dtype.names or ())  # older versions: 0 to 1
    rgb = _between(chunks, "color", color[:, :3]) if has_color else color[:, :3]
    scale = _between(chunks, "scale", _fractions(words["packed_scale"], (11, 10, 11)))
    with np.errstate(over="ignore"):
        scale = np.exp(scale)
    return model_of(
        path,
        xyz=_between(chunks, "position", _fractions(words["packed_position"], (11, 10, 11))) - origin,
        sh=np.concatenate([RGB2SH(rgb)[:, None], _bands(path, count, has_sh)], 1),
        opacity=opacity_of_share(color[:, 3:], step=1 / 255),
        scale=scale,
        rotation=_rotations(words["packed_rotation"]),
    )


def _check(path: str | os.PathLike[str], table: np.ndarray, names: tuple[str, ...]) -> None:
    missing = set(names) - set(table.dtype.names or ())
    if missing:
        raise UserError(f"{path}: no column {sorted(missing)[0]} of a compressed PLY. Export it again.")


def _fractions(words: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Fractions (N, len(bits)) in [0, 1] of words (N,), the first in the highest bits."""
    shifts = [sum(bits[place + 1 :]) for place in range(len(bits))]
    parts = [
        (words >> np.uint32(shift) & np.uint32(2**width - 1)) / (2**width - 1)
        for shift, width in zip(shifts, bits, strict=True)
    ]
    return np.stack(parts, 1)


def _between(chunks: np.ndarray, name: str, fractions: np.ndarray) -> np.ndarray:
    """Values (N, 3) at fractions of the ranges of their chunks."""
    of = np.arange(len(fractions)) // CHUNK
    columns = [chunks[column].astype(np.float64)[of] for column in RANGES[name]]
    low, high = np.stack(columns[:3], 1), np.stack(columns[3:], 1)
    with np.errstate(invalid="ignore"):
        values: np.ndarray = low + fractions * (high - low)
    return values


def _rotations(words: np.ndarray) -> np.ndarray:
    """Quaternions (N, 4) w x y z."""
    others = (_fractions(words & np.uint32(2**30 - 1), (10, 10, 10)) - 0.5) * np.sqrt(2)
    largest = np.sqrt(np.maximum(1 - (others**2).sum(1), 0))
    place = (words >> np.uint32(30)).astype(np.int64)
    turns = np.empty((len(words), 4))
    for index in range(4):
        chosen = place == index
        turns[chosen] = np.insert(others[chosen], index, largest[chosen], axis=1)
    return turns


def _bands(path: str | os.PathLike[str], count: int, has_sh: bool) -> np.ndarray:
    """SH coefficients (N, K, 3) above the constant one."""
    if not has_sh:
        return np.zeros((count, 0, 3))
    rows = read_vertices(path, "sh")
    columns = len(rows.dtype.names or ())
    _check(path, rows, tuple(f"f_rest_{index}" for index in range(columns)))
    if columns not in SH_REST_COUNTS or len(rows) != count:
        raise UserError(f"{path}: {columns} coefficients of {len(rows):,} Gaussians. Export it again.")
    table = np.stack([rows[f"f_rest_{index}"].astype(np.float64) for index in range(columns)], 1)
    values = ((table + 0.5) / SH_STEPS - 0.5) * SH_RANGE
    return values.reshape(count, 3, columns // 3).transpose(0, 2, 1)
