"""`.splat` files, which most web viewers open: 32 bytes a Gaussian and no header.

A row: centre and standard deviations as float32, then bytes: red, green, blue, opacity (0 to 255), rotation
w x y z (128 is 0). There is one colour for all directions: SH bands above the constant one have no place.
"""

import os
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scene.formats.stored import model_of, numpy_of, opacity_of_share
from utils.errors import UserError
from utils.files import atomic_write
from utils.sh import RGB2SH, SH2RGB

ROW = np.dtype([("xyz", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])


def splat_rows(params: Mapping[str, Tensor]) -> np.ndarray:
    """The rows (N,) of a model's file."""
    rows = np.zeros(len(params["xyz"]), ROW)
    rows["xyz"] = numpy_of(params["xyz"])
    rows["scale"] = numpy_of(params["scaling"].exp())
    colours = SH2RGB(params["f_dc"][:, 0])
    rows["rgba"] = _bytes(torch.cat([colours, params["opacity"].sigmoid()], 1) * 255)
    rows["rotation"] = _bytes(torch.nn.functional.normalize(params["rotation"]) * 128 + 128)
    return rows


def write_splat(path: str | os.PathLike[str], params: Mapping[str, Tensor]) -> None:
    """Write a model, rows in its order, atomically."""
    with atomic_write(path) as temporary:
        splat_rows(params).tofile(temporary)


def read_splat(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Model of a file, SH degree 0, on the CPU.

    Raises:
        UserError: its size is no whole number of rows.
    """
    size = os.path.getsize(path)
    if size % ROW.itemsize:
        raise UserError(
            f"{path}: {size:,} bytes; a .splat has {ROW.itemsize} for each Gaussian. Copy or export it again."
        )
    rows = np.fromfile(path, ROW)
    return model_of(
        path,
        xyz=rows["xyz"],
        sh=RGB2SH(rows["rgba"][:, None, :3] / 255.0),
        opacity=opacity_of_share(rows["rgba"][:, 3:] / 255.0, step=1 / 255),
        scale=rows["scale"],
        rotation=(rows["rotation"].astype(np.float32) - 128) / 128,
    )


def _bytes(values: Tensor) -> np.ndarray:
    return numpy_of(values.round().clamp(0, 255).to(torch.uint8))
