"""PLY files: columns of the contract, round trips, files of others."""

from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch

from scene.ply import export_3dgs_ply, read_ply, read_point_cloud, write_ply, write_point_cloud
from utils.errors import UserError

CONTRACT = (
    ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    + [f"f_rest_{i}" for i in range(45)]
    + ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
)
IDENTITY = [f"obj_dc_{i}" for i in range(16)]


def model(count: int = 7, degree: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "xyz": (3,),
        "f_dc": (1, 3),
        "f_rest": ((degree + 1) ** 2 - 1, 3),
        "opacity": (1,),
        "scaling": (3,),
        "rotation": (4,),
        "obj_dc": (1, 16),
    }
    return {name: torch.randn(count, *shape, generator=generator) for name, shape in shapes.items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, degree: int, count: int) -> None:
    params = model(count, degree)
    write_ply(tmp_path / "deep" / "a.ply", params)
    assert_same(read_ply(tmp_path / "deep" / "a.ply"), params)


def test_columns_are_the_contracts(tmp_path: Path) -> None:
    params = {name: torch.nn.Parameter(value) for name, value in model().items()}
    write_ply(tmp_path / "a.ply", params)
    export_3dgs_ply(tmp_path / "b.ply", params)
    file = plyfile.PlyData.read(str(tmp_path / "a.ply"))
    assert file.byte_order == "<" and not file.text
    assert list(file["vertex"].data.dtype.names) == CONTRACT + IDENTITY
    assert {file["vertex"].data.dtype[i] for i in range(len(CONTRACT))} == {np.dtype("<f4")}
    assert list(plyfile.PlyData.read(str(tmp_path / "b.ply"))["vertex"].data.dtype.names) == CONTRACT


def test_colour_coefficients_are_stored_channel_by_channel(tmp_path: Path) -> None:
    params = model()
    write_ply(tmp_path / "a.ply", params)
    vertices = plyfile.PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    for channel in range(3):
        for coefficient in range(15):
            column = vertices[f"f_rest_{15 * channel + coefficient}"]
            np.testing.assert_array_equal(column, params["f_rest"][:, coefficient, channel].numpy())


def test_a_3dgs_file_has_zero_identity_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    params = model()
    export_3dgs_ply(tmp_path / "b.ply", params)
    assert_same(read_ply(tmp_path / "b.ply"), {**params, "obj_dc": torch.zeros(7, 1, 16)})
    assert "obj_dc" in caplog.text


def test_files_that_are_no_model_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.ply"
    write_point_cloud(path, np.zeros((3, 3)), np.zeros((3, 3)))
    with pytest.raises(UserError, match=r"bad\.ply.*f_dc_0"):
        read_ply(path)
    write_ply(path, model())
    for content in (path.read_bytes()[:-50], b"ply\nnonsense", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.ply"):
            read_ply(path)
    with pytest.raises(UserError, match=r"absent\.ply"):
        read_ply(tmp_path / "absent.ply")


def test_points_come_back_with_their_colours(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(9, 3)).astype(np.float32).astype(np.float64)
    colors = generator.integers(0, 256, (9, 3)) / 255.0
    write_point_cloud(tmp_path / "input.ply", points, colors)
    read_points, read_colors = read_point_cloud(tmp_path / "input.ply")
    np.testing.assert_array_equal(read_points, points)
    np.testing.assert_allclose(read_colors, colors, atol=1e-6)
