"""A splat is read whole, and one that does not belong to the cameras is refused with the likely cause."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from gaussian_renderer import render
from gradiseg.finished.splat import check_fit, load_splat, quarter_turns
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.ply import export_3dgs_ply, write_point_cloud
from tests.labelled_scene import labelled_scene, views
from utils.errors import UserError
from utils.image import to_uint8

pytestmark = pytest.mark.usefixtures("one_thread")
BACKGROUND = torch.zeros(3)
Photographed = tuple[dict[str, torch.Tensor], list[Camera]]


def model_of(params: dict[str, torch.Tensor]) -> GaussianModel:
    """The model of some parameters."""
    model = GaussianModel(3)
    model.set_params(params)
    model.active_sh_degree = 3
    return model


@pytest.fixture(scope="module")
def photographed() -> Photographed:
    """A splat of four balls, and cameras with photographs of it."""
    params = dict(labelled_scene().params)
    cameras = []
    for camera in views().values():
        with torch.no_grad():
            picture = to_uint8(render(camera, model_of(params))["render"])
        size = (camera.image_width, camera.image_height)
        intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
        cameras.append(Camera(0, camera.image_name, *size, *intrinsics, camera.R, camera.T, picture))
    return params, cameras


def test_the_scenes_own_splat_passes(photographed: Photographed) -> None:
    params, cameras = photographed
    assert check_fit(model_of(params), cameras, BACKGROUND, params["xyz"].numpy(), 16.0) > 40


def test_another_scale_is_named(photographed: Photographed) -> None:
    params, cameras = photographed
    larger = params | {"xyz": 10 * params["xyz"], "scaling": params["scaling"] + np.log(10.0)}
    with pytest.raises(UserError, match=r"spread 10 times as far .* another scale"):
        check_fit(model_of(larger), cameras, BACKGROUND, params["xyz"].numpy(), 16.0)


def test_turned_axes_are_named(photographed: Photographed) -> None:
    params, cameras = photographed
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # z up becomes y up
    balls = params | {
        "f_rest": 0 * params["f_rest"],
        "scaling": params["scaling"].mean(1, True).expand(-1, 3),
    }
    turned = balls | {"xyz": balls["xyz"] @ turn.T}
    with pytest.raises(UserError, match=r"x, y, z turned to x, -z, y it would be"):
        check_fit(model_of(turned), cameras, BACKGROUND, params["xyz"].numpy(), 20.0)


def test_another_scene_is_named(photographed: Photographed) -> None:
    params, cameras = photographed
    generator = torch.Generator().manual_seed(1)
    other = params | {
        "xyz": params["xyz"][torch.randperm(len(params["xyz"]), generator=generator)],
        "f_dc": -params["f_dc"],
    }
    with pytest.raises(UserError, match=r"dB PSNR .* another scene or scale, or was trained with"):
        check_fit(model_of(other), cameras, BACKGROUND, params["xyz"].numpy(), 30.0)


def test_quarter_turns_are_all_the_others() -> None:
    turns = np.stack(quarter_turns())
    assert len(turns) == 23 and len(np.unique(turns.reshape(23, 9), axis=0)) == 23
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape))


def test_rows_of_nan_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    params = {name: table.clone() for name, table in labelled_scene().params.items()}
    params["opacity"][3], params["xyz"][7, 1] = torch.nan, torch.inf
    export_3dgs_ply(tmp_path / "splat.ply", params)
    model = load_splat(tmp_path / "splat.ply", "cpu")
    assert model.num_gaussians == len(params["xyz"]) - 2 and "2 of 240 Gaussians hold NaN" in caplog.text
    params["opacity"][:] = torch.nan
    export_3dgs_ply(tmp_path / "nothing.ply", params)
    with pytest.raises(UserError, match="every Gaussian holds NaN"):
        load_splat(tmp_path / "nothing.ply", "cpu")


LAYOUTS = {  # columns as other programs write them: order, normals, what else they hold
    "nerfstudio": "x y z nx ny nz f_dc f_rest opacity scale rot",
    "brush": "x y z scale opacity rot f_dc f_rest",
    "postshot": "x y z f_dc f_rest opacity rot scale segment red green blue",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_layouts_of_other_programs_are_read(tmp_path: Path, layout: str, degree: int) -> None:
    params = {name: table.clone() for name, table in labelled_scene().params.items()}
    params["f_rest"] = params["f_rest"][:, : (degree + 1) ** 2 - 1]
    export_3dgs_ply(tmp_path / "ours.ply", params)
    ours = PlyData.read(tmp_path / "ours.ply")["vertex"].data
    names: list[str] = []
    for word in LAYOUTS[layout].split():
        found = [name for name in ours.dtype.names if name == word or name.startswith(f"{word}_")]
        names += found or ([] if word == "f_rest" else [word])
    table = np.zeros(len(ours), [(name, "f4") for name in names])
    for name in set(names) & set(ours.dtype.names):
        table[name] = ours[name]
    PlyData([PlyElement.describe(table, "vertex")]).write(tmp_path / "theirs.ply")
    one, two = (load_splat(tmp_path / f"{whose}.ply", "cpu") for whose in ("ours", "theirs"))
    assert two.max_sh_degree == degree
    assert all(torch.equal(one.params[name], two.params[name]) for name in one.params)


def test_a_mesh_and_a_point_cloud_are_refused(tmp_path: Path) -> None:
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(axis, "f4") for axis in "xyz"])
    faces = np.array([([0, 1, 2],)], [("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(corners, "vertex"), PlyElement.describe(faces, "face")]
    PlyData(elements).write(tmp_path / "mesh.ply")
    write_point_cloud(tmp_path / "points.ply", np.zeros((4, 3)), np.zeros((4, 3)))
    for name in ("mesh", "points"):
        with pytest.raises(UserError, match=rf"{name}\.ply: no column f_dc_0.*not the file of a Gaussian"):
            load_splat(tmp_path / f"{name}.ply", "cpu")
