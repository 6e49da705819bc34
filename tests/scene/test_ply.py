"""PLY files: columns of the contract, round trips, files of others."""

from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch

from scene.ply import export_3dgs_ply, read_ply, read_point_cloud, write_ply, write_point_cloud
from tests.gaussians import random_params
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


def cloud_file(path: Path, dtype: str, colors: np.ndarray, names: tuple[str, ...]) -> None:
    """A point cloud of another program."""
    table = np.zeros(len(colors), dtype=[(axis, "f8") for axis in "xyz"] + [(name, dtype) for name in names])
    for index, name in enumerate(names):
        table[name] = colors[:, index]
    plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")]).write(str(path))


RGB = ("red", "green", "blue")
SHARES = np.array([[0.0, 0.2, 1.0], [0.6, 0.4, 0.8]])


@pytest.mark.parametrize(
    ("dtype", "largest", "names"),
    [
        ("u1", 255, RGB),
        ("u2", 65535, RGB),
        ("f4", 1, RGB),
        ("f8", 1, RGB),
        ("f4", 255, RGB),
        ("i4", 255, RGB),
        ("u2", 255, RGB),
        ("u1", 255, ("r", "g", "b")),
        ("u1", 255, ("diffuse_red", "diffuse_green", "diffuse_blue")),
    ],
)
@pytest.mark.parametrize("text", [False, True])
def test_colours_of_every_usual_range_and_name(
    tmp_path: Path, dtype: str, largest: int, names: tuple[str, ...], text: bool
) -> None:
    path = tmp_path / "points3d.ply"
    cloud_file(path, dtype, SHARES * largest, names)
    if text:
        data = plyfile.PlyData.read(str(path), mmap=False)
        plyfile.PlyData(list(data), text=True).write(str(path))
    np.testing.assert_allclose(read_point_cloud(path)[1], SHARES, atol=1e-6)


def test_a_model_of_gaussians_is_a_point_cloud_too(tmp_path: Path) -> None:
    params = model() | {"f_dc": torch.full((7, 1, 3), (0.7 - 0.5) / 0.28209479177387814)}
    write_ply(tmp_path / "a.ply", params)
    np.testing.assert_allclose(read_point_cloud(tmp_path / "a.ply")[1], 0.7, atol=1e-6)


@pytest.mark.parametrize(("dtype", "value"), [("f4", -0.5), ("f4", np.nan), ("f8", 1e6), ("i4", 70_000)])
def test_colours_outside_every_range_are_named(tmp_path: Path, dtype: str, value: float) -> None:
    cloud_file(tmp_path / "points3d.ply", dtype, np.full((2, 3), value), RGB)
    with pytest.raises(UserError, match=r"points3d\.ply: red green blue from"):
        read_point_cloud(tmp_path / "points3d.ply")


def test_points_without_colours_are_grey_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud_file(tmp_path / "points3d.ply", "u1", np.zeros((2, 1)), ("intensity",))
    assert (read_point_cloud(tmp_path / "points3d.ply")[1] == 0.5).all()
    assert "no colours" in caplog.text


def test_gaussians_that_hold_nan_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = model()
    broken = {name: value.clone() for name, value in whole.items()}
    broken["xyz"][:2, 0] = torch.nan
    broken["scaling"][1:3, 2] = torch.inf
    broken["obj_dc"][6, 0, 5] = torch.nan
    write_ply(tmp_path / "a.ply", broken)
    assert_same(read_ply(tmp_path / "a.ply"), {name: value[3:6] for name, value in whole.items()})
    assert "4 of 7 Gaussians" in caplog.text
    assert all(part in caplog.text for part in ("x (2)", "scale_2 (2)", "obj_dc_5 (1)"))
    write_ply(tmp_path / "a.ply", broken | {"opacity": torch.full((7, 1), torch.nan)})
    with pytest.raises(UserError, match=r"a\.ply: every Gaussian"):
        read_ply(tmp_path / "a.ply")


def test_far_from_the_origin_files_keep_the_users_frame(tmp_path: Path) -> None:
    origin, params = np.array([500_000.0, 4_500_000.0, 100.0]), model()
    write_ply(tmp_path / "a.ply", params, origin)
    vertices = plyfile.PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    assert vertices.data.dtype["x"] == np.dtype("f8") and vertices.data.dtype["opacity"] == np.dtype("f4")
    np.testing.assert_allclose(
        vertices["y"], params["xyz"][:, 1].double().numpy() + 4_500_000.0, rtol=0, atol=1e-9
    )
    back = read_ply(tmp_path / "a.ply", origin)
    torch.testing.assert_close(back["xyz"], params["xyz"], rtol=0, atol=1e-8)
    points = params["xyz"].double().numpy()
    write_point_cloud(tmp_path / "b.ply", points, np.zeros((7, 3)), origin)
    np.testing.assert_allclose(read_point_cloud(tmp_path / "b.ply")[0], points + origin, rtol=0, atol=1e-9)


def test_infinite_logits_and_sizes_of_nothing_become_finite(tmp_path: Path) -> None:
    """Other tools write an opacity of 1 as the infinity that its logit is, and a size of 0 likewise."""
    params = random_params(4)
    params["opacity"][:2, 0] = torch.tensor([torch.inf, -torch.inf])
    params["scaling"][2, 1] = -torch.inf
    write_ply(tmp_path / "a.ply", params)
    back = read_ply(tmp_path / "a.ply")
    assert len(back["xyz"]) == 4 and all(tensor.isfinite().all() for tensor in back.values())
    assert back["opacity"][:2, 0].sigmoid().tolist() == pytest.approx([1.0, 0.0], abs=1e-9)
    assert float(back["scaling"][2, 1].exp()) < 1e-12
