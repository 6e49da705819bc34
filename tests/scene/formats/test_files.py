"""Any file of Gaussians: told by what it holds, read the same whoever wrote it."""

from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scene.formats.files import FORMATS, read_gaussians, write_gaussians
from scene.formats.losses import losses
from tests.gaussians import random_params
from utils.errors import UserError


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_again_row_by_row(tmp_path: Path, name: str) -> None:
    params = random_params(50)
    path = tmp_path / f"a{FORMATS[name].suffix}"
    write_gaussians(path, params, name, (0.0, -1.0, 0.0))
    back = read_gaussians(path)
    lost = losses(params, back)
    assert lost.centre == 0
    assert lost.identities == (name != "gradiseg")
    if FORMATS[name].suffix == ".ply":
        assert all(torch.equal(params[key], back[key]) for key in params if key != "obj_dc")


def test_another_reader_finds_what_was_written(tmp_path: Path) -> None:
    params = random_params(40)
    write_gaussians(tmp_path / "a.ply", params, "ply")
    vertices = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    columns = [
        *"xyz",
        "nx",
        "ny",
        "nz",
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(45)),
    ]
    columns += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    assert [item.name for item in vertices.properties] == columns
    for name, index in (("f_rest_0", (0, 0)), ("f_rest_16", (1, 1)), ("f_rest_44", (14, 2))):
        np.testing.assert_array_equal(vertices[name], params["f_rest"][:, index[0], index[1]])
    np.testing.assert_array_equal(vertices["rot_3"], params["rotation"][:, 3])


@given(degree=st.integers(0, 3), kind=st.sampled_from(["f4", "f8"]), order=st.permutations(range(6)))
def test_ply_files_of_other_tools_are_read(
    tmp_path_factory: pytest.TempPathFactory, degree: int, kind: str, order: list[int]
) -> None:
    """No normals, double, columns in another order and columns of their own."""
    params = random_params(3)
    rest = params["f_rest"][:, : (degree + 1) ** 2 - 1]
    tables = [
        (list("xyz"), params["xyz"]),
        ([f"f_dc_{i}" for i in range(3)], params["f_dc"][:, 0]),
        ([f"f_rest_{i}" for i in range(rest[0].numel())], rest.transpose(1, 2).flatten(1)),
        (["opacity"], params["opacity"]),
        ([f"scale_{i}" for i in range(3)], params["scaling"]),
        ([f"rot_{i}" for i in range(4)], params["rotation"]),
    ]
    columns = {
        name: table[:, i]
        for place in order
        for names, table in [tables[place]]
        for i, name in enumerate(names)
    }
    vertices = np.zeros(3, [*((name, kind) for name in columns), ("segment", "u1"), ("time", "f4")])
    for name, column in columns.items():
        vertices[name] = column
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")]).write(path)
    back = read_gaussians(path)
    for name in ("xyz", "f_dc", "opacity", "scaling", "rotation"):
        assert torch.equal(back[name], params[name])
    assert torch.equal(back["f_rest"], rest)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"ply\nelement vertex 4\nproperty uint packed_position\n", r"a\.ply: cannot be read"),
        ("a.ply", b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\n", r"a\.ply: "),
        ("a.ksplat", b"whatever", "neither PLY"),
        ("a.splat", b"", "holds no Gaussians"),
        ("a.glb", b"glTF", "malformed glTF"),
    ],
)
def test_what_is_not_read_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_gaussians(tmp_path / name)
    with pytest.raises(UserError, match="not there"):
        read_gaussians(tmp_path / "missing.ply")
