"""GaussianModel: initialisation, what the renderer reads, learning rates, capture and restore."""

from pathlib import Path

import numpy as np
import pytest
import torch

from arguments import OptimizationParams
from scene.gaussian_model import GaussianModel
from scene.ply import IDENTITY_DIM
from scene.views import BasicPointCloud
from tests.gaussians import random_params, rows, step_randomly, trained_model
from utils.sh import SH2RGB


def cloud(count: int = 30) -> BasicPointCloud:
    rng = np.random.default_rng(0)
    return BasicPointCloud(points=rng.random((count, 3)), colors=rng.random((count, 3)))


def test_starts_as_round_faint_gaussians_of_the_cloud() -> None:
    pcd, model = cloud(), GaussianModel(3)
    model.create_from_pcd(pcd, spatial_lr_scale=2.0)
    distances = np.sort(((pcd.points[:, None] - pcd.points[None]) ** 2).sum(2), axis=1)[:, 1:4].mean(1)
    expected = np.sqrt(distances)[:, None].repeat(3, 1)
    np.testing.assert_allclose(model.get_scaling.detach().numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(SH2RGB(model.params["f_dc"].detach()[:, 0]).numpy(), pcd.colors, atol=1e-6)
    assert torch.allclose(model.get_opacity, torch.tensor(0.1))
    assert model.get_features.shape == (30, 16, 3) and model.get_objects.shape == (30, 1, IDENTITY_DIM)
    assert len(model.get_objects.detach().unique(dim=0)) == 30  # identities differ from the start
    assert model.active_sh_degree == 0


def test_coincident_points_start_with_a_finite_scale() -> None:
    model = GaussianModel(1)
    model.create_from_pcd(BasicPointCloud(points=np.zeros((5, 3)), colors=np.zeros((5, 3))), 1.0)
    assert model.params["scaling"].isfinite().all()


def test_identity_start_follows_the_seed() -> None:
    starts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = GaussianModel(0)
        model.create_from_pcd(cloud(), 1.0)
        starts.append(model.get_objects.detach())
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def test_learning_rates_follow_the_options() -> None:
    opt = OptimizationParams(position_lr_max_steps=100)
    model = trained_model(4, opt=opt)
    model.spatial_lr_scale = 3.0
    model.training_setup(opt)
    assert model.optimizer_group("obj_dc")["lr"] == opt.identity_lr
    assert model.optimizer_group("f_rest")["lr"] == pytest.approx(opt.feature_lr / 20)
    assert model.update_learning_rate(0) == pytest.approx(3.0 * opt.position_lr_init)
    assert model.update_learning_rate(50) == pytest.approx(3.0 * 1.6e-5)  # geometric mean: log-linear
    assert model.update_learning_rate(1000) == pytest.approx(3.0 * opt.position_lr_final)
    assert model.optimizer_group("xyz")["lr"] == pytest.approx(3.0 * opt.position_lr_final)


def test_a_parameter_without_gradient_does_not_move() -> None:
    model = trained_model(4)
    model.training_setup(OptimizationParams())
    before = model.params["f_rest"].detach().clone()
    model.params["xyz"].grad = torch.ones(4, 3)
    assert model.optimizer is not None
    model.optimizer.step()
    assert torch.equal(model.params["f_rest"], before)


def test_sh_degree_stops_at_the_maximum() -> None:
    model = GaussianModel(2)
    for _ in range(5):
        model.oneupSHdegree()
    assert model.active_sh_degree == 2


def test_ply_round_trip_is_bitwise_and_takes_the_files_degree(tmp_path: Path) -> None:
    model, loaded = trained_model(7), GaussianModel(0)
    model.save_ply(tmp_path / "point_cloud.ply")
    loaded.load_ply(tmp_path / "point_cloud.ply")
    assert loaded.max_sh_degree == loaded.active_sh_degree == 3
    for name, parameter in model.params.items():
        assert torch.equal(loaded.params[name], parameter), name


def test_a_restored_model_trains_on_with_the_same_bits() -> None:
    opt, model, other = OptimizationParams(), trained_model(9), GaussianModel(0)
    model.oneupSHdegree()
    other.restore(model.capture(), opt)
    step_randomly(model, torch.Generator().manual_seed(5))
    expected = rows(model)
    step_randomly(other, torch.Generator().manual_seed(5))  # must not start from the other's memory
    assert other.active_sh_degree == 1
    after = rows(other)
    for name, value in expected.items():
        assert torch.equal(after[name], value), name


def test_restore_without_options_gives_a_model_for_rendering() -> None:
    other = GaussianModel(3)
    other.restore(trained_model(5).capture())
    assert other.optimizer is None and other.num_gaussians == 5


@pytest.mark.parametrize("name", ["rotation", "obj_dc"])
def test_wrong_shapes_are_refused(name: str) -> None:
    params = random_params(4)
    params[name] = params[name][:3]
    with pytest.raises(ValueError, match="shapes"):
        GaussianModel(3).set_params(params)


def test_opacities_do_not_depend_on_the_number_of_threads() -> None:
    model = GaussianModel()
    model.set_params(random_params(100_003))  # torch splits elementwise work above 32,768 elements
    logits, upstream = model.params["opacity"], torch.linspace(-1, 1, 100_003)[:, None]
    bits = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        opacity = model.get_opacity
        (gradient,) = torch.autograd.grad(opacity, logits, upstream)
        bits.append(torch.cat([opacity.detach(), gradient]))
    torch.set_num_threads(threads)
    assert torch.equal(bits[0], bits[1]) and torch.equal(bits[0], bits[2])
    torch.testing.assert_close(bits[0][:100_003], torch.sigmoid(model.params["opacity"].detach()))
