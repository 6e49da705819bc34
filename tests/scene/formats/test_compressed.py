"""Compressed PLY: values within half a step of what was packed; files that do not fit are named."""

from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch
from numpy.lib.recfunctions import drop_fields

from scene.formats.compressed import CHUNK, RANGES
from scene.formats.files import read_gaussians
from scene.formats.losses import losses
from tests.gaussians import random_params
from utils.errors import UserError
from utils.sh import RGB2SH, SH2RGB

COUNT = CHUNK + 40


def packed(parts: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Words (N,) of fractions (N, len(bits)), the first in the highest bits."""
    word = np.zeros(len(parts), np.uint32)
    for part, width in zip(parts.T, bits, strict=True):
        word = (word << np.uint32(width)) | np.rint(part * (2**width - 1)).astype(np.uint32)
    return word


def fractions(values: np.ndarray, chunks: np.ndarray, name: str) -> np.ndarray:
    """Where values (N, 3) lie in the ranges of their chunks, which are written to `chunks`."""
    result = np.empty_like(values)
    for index in range(len(chunks)):
        part = slice(CHUNK * index, CHUNK * (index + 1))
        low, high = values[part].min(0), values[part].max(0)
        for column, value in zip(RANGES[name], [*low, *high], strict=True):
            chunks[column][index] = value
        result[part] = (values[part] - low) / (high - low)
    return result


def elements(params: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The tables of a model's file."""
    columns = [column for names in RANGES.values() for column in names]
    chunks = np.zeros(-(-COUNT // CHUNK), [(column, "f4") for column in columns])
    rows = np.zeros(COUNT, [(f"packed_{name}", "u4") for name in ("position", "rotation", "scale", "color")])
    values = {name: tensor.numpy().astype(np.float64) for name, tensor in params.items()}
    rows["packed_position"] = packed(fractions(values["xyz"], chunks, "position"), (11, 10, 11))
    rows["packed_scale"] = packed(fractions(values["scaling"], chunks, "scale"), (11, 10, 11))
    colors = fractions(SH2RGB(values["f_dc"][:, 0]), chunks, "color")
    opacity = 1 / (1 + np.exp(-values["opacity"]))
    rows["packed_color"] = packed(np.concatenate([colors, opacity], 1), (8, 8, 8, 8))
    turns = values["rotation"] / np.linalg.norm(values["rotation"], axis=1, keepdims=True)
    place = np.abs(turns).argmax(1)
    turns *= np.sign(np.take_along_axis(turns, place[:, None], 1))
    others = np.stack([np.delete(turn, index) for turn, index in zip(turns, place, strict=True)])
    rows["packed_rotation"] = packed(others / np.sqrt(2) + 0.5, (10, 10, 10)) | (place << 30).astype(
        np.uint32
    )
    sh = np.zeros(COUNT, [(f"f_rest_{index}", "u1") for index in range(45)])
    rest = values["f_rest"].transpose(0, 2, 1).reshape(COUNT, 45)
    for index in range(45):
        sh[f"f_rest_{index}"] = np.clip(np.floor((rest[:, index] / 8 + 0.5) * 256), 0, 255)
    return {"chunk": chunks, "vertex": rows, "sh": sh}


def written(path: Path, tables: dict[str, np.ndarray]) -> Path:
    """A binary PLY of these elements."""
    parts = [plyfile.PlyElement.describe(table, name) for name, table in tables.items()]
    plyfile.PlyData(parts, byte_order="<").write(path)
    return path


def test_every_value_is_within_half_a_step(tmp_path: Path) -> None:
    params = random_params(COUNT)
    params["f_rest"] = params["f_rest"].clamp(-3.9, 3.9)
    path = written(tmp_path / "a.compressed.ply", elements(params))
    back = read_gaussians(path)
    lost = losses(params, back)
    extent = params["xyz"].amax(0) - params["xyz"].amin(0)
    assert lost.centre < float(extent.norm()) * 0.5 / 1023 + 1e-6
    assert lost.scale < 0.01 and lost.opacity < 0.5 / 255 + 1e-6 and lost.degrees < 0.25
    assert lost.view_dependence < 4.001 / 256
    without_sh = elements(params)
    del without_sh["sh"]
    assert read_gaussians(written(path, without_sh))["f_rest"].shape == (COUNT, 0, 3)


def test_colours_of_an_older_version_are_fractions(tmp_path: Path) -> None:
    params = random_params(COUNT)
    tables = elements(params)
    tables["chunk"] = drop_fields(tables["chunk"], RANGES["color"])
    back = read_gaussians(written(tmp_path / "a.ply", tables))
    red = (tables["vertex"]["packed_color"] >> 24) / 255
    np.testing.assert_allclose(back["f_dc"][:, 0, 0], RGB2SH(red), rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    good = elements(random_params(COUNT))
    for name, table, words in (
        ("chunk", good["chunk"][:1], "1 chunks for 296 Gaussians"),
        ("chunk", drop_fields(good["chunk"], ["min_y"]), "no column min_y"),
        ("vertex", drop_fields(good["vertex"], ["packed_scale"]), "no column packed_scale"),
        ("sh", good["sh"][:5], "45 coefficients of 5 Gaussians"),
        ("sh", drop_fields(good["sh"], ["f_rest_3"]), "no column f_rest_3"),
    ):
        with pytest.raises(UserError, match=words):
            read_gaussians(written(tmp_path / "a.ply", {**good, name: table}))
    whole = written(tmp_path / "a.ply", good).read_bytes()
    (tmp_path / "a.ply").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="truncated"):
        read_gaussians(tmp_path / "a.ply")
