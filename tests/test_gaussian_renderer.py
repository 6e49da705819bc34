"""render(): cameras and models in, the tensors of the contract out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from gaussian_renderer import contributions, render
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.views import BasicPointCloud
from tests.disc_scene import (
    CLASSES,
    CX,
    CY,
    DISCS,
    FOCAL,
    HEIGHT,
    VIEWS,
    WIDTH,
    disc_model,
    projected_centre,
    silhouette,
)
from tests.gaussians import random_params

BLACK = torch.zeros(3)
pytestmark = pytest.mark.usefixtures("one_thread")


def camera_of(view: str) -> Camera:
    """A view of the scene of two discs; its principal point is off centre."""
    x, y = VIEWS[view]
    return Camera(0, view, WIDTH, HEIGHT, FOCAL, FOCAL, CX, CY, np.eye(3), np.array([-x, -y, 0.0]))


def random_model(count: int = 60, sh_degree: int = 3) -> GaussianModel:
    """Random Gaussians in front of `camera_of`, with every SH degree active."""
    model = GaussianModel(3)
    params = random_params(count)
    params["xyz"] = 0.5 * params["xyz"] + torch.tensor([0.0, 0.0, 4.0])
    model.set_params(params)
    model.active_sh_degree = sh_degree
    return model


def weighted(image: Tensor) -> Tensor:
    """A fixed random linear function of an image."""
    return (image * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).sum()


def centroid(image: Tensor) -> tuple[float, float]:
    """(x, y) in COLMAP's pixels, the centre of the first being (1/2, 1/2)."""
    rows, columns = torch.meshgrid(*(torch.arange(size) + 0.5 for size in image.shape), indexing="ij")
    return float((image * columns).sum() / image.sum()), float((image * rows).sum() / image.sum())


@pytest.mark.parametrize("view", list(VIEWS)[::2])
def test_the_package_shows_the_scene_where_colmap_says(view: str) -> None:
    model = disc_model()
    package = render(camera_of(view), model, bg_color=BLACK)
    assert package["render"].shape == (3, HEIGHT, WIDTH)
    assert package["render_object"].shape == (16, HEIGHT, WIDTH)
    assert package["viewspace_points"].shape == (model.num_gaussians, 3)
    assert package["radii"].shape == package["visibility_filter"].shape == (model.num_gaussians,)
    assert torch.equal(package["visibility_filter"], package["radii"] > 0)
    for disc in DISCS.values():
        inside = torch.from_numpy(silhouette(disc, view))
        identity = package["render_object"][disc.identity].detach()
        assert ((identity > 10.0) == inside).float().mean() > 0.99
        assert centroid(identity) == pytest.approx(projected_centre(disc, view), abs=0.05)
        core = torch.from_numpy(silhouette(disc._replace(radius=0.8 * disc.radius), view))
        expected = torch.tensor(disc.color)[:, None]
        torch.testing.assert_close(
            package["render"][:, core], expected.expand(3, int(core.sum())), rtol=0, atol=0.03
        )
    assert not package["render_object"][CLASSES:].any()


def test_a_resized_camera_shows_the_same_scene() -> None:
    """Intrinsics scale about the image's corner, not about the centre of its first pixel."""
    camera = camera_of("view.2")
    with torch.no_grad():
        large = render(camera, disc_model(), bg_color=BLACK)["render_object"]
        small = render(camera.at_resolution(WIDTH // 3, HEIGHT // 3), disc_model(), bg_color=BLACK)[
            "render_object"
        ]
    for disc in DISCS.values():
        x, y = centroid(large[disc.identity])
        assert centroid(small[disc.identity]) == pytest.approx((x / 3, y / 3), abs=0.05)


def test_gaussian_groupings_positional_order() -> None:
    camera, model, background = camera_of("view.0"), random_model(), torch.ones(3)
    positional = render(camera, model, SimpleNamespace(debug=False), background, 0.5, None)
    named = render(viewpoint_camera=camera, pc=model, pipe=None, bg_color=background, scaling_modifier=0.5)
    assert torch.equal(positional["render"], named["render"])
    assert not torch.equal(named["render"], render(camera, model, bg_color=background)["render"])


def test_the_background_is_behind_the_colour_only() -> None:
    camera, model = camera_of("view.0"), random_model()
    on_black, on_white = render(camera, model, bg_color=BLACK), render(camera, model, bg_color=torch.ones(3))
    behind = on_white["render"] - on_black["render"]  # (3, H, W) transmittance
    assert torch.allclose(behind[0], behind[2], atol=1e-6) and behind.min() >= 0 and behind.max() > 0.9
    assert torch.equal(on_black["render_object"], on_white["render_object"])


def test_override_color_replaces_the_sh_colours_and_keeps_the_identities() -> None:
    camera, model = camera_of("view.0"), random_model()
    package = render(camera, model, bg_color=BLACK, override_color=torch.ones(60, 3))
    alpha = 1 - (
        render(camera, model, bg_color=torch.ones(3))["render"]
        - render(camera, model, bg_color=BLACK)["render"]
    )
    torch.testing.assert_close(package["render"], alpha, rtol=0, atol=1e-5)
    assert torch.equal(package["render_object"], render(camera, model, bg_color=BLACK)["render_object"])
    weighted(package["render"]).backward()
    assert model.params["f_dc"].grad is None and model.params["xyz"].grad is not None


def test_override_identity_replaces_the_encodings_alone() -> None:
    camera, model = camera_of("view.0"), random_model()
    codes = torch.cat([model.get_objects[:, 0].detach(), torch.ones(60, 5)], 1)  # (N, 21)
    package, plain = (
        render(camera, model, override_identity=codes),
        render(camera, model),
    )
    torch.testing.assert_close(package["render_object"][:16], plain["render_object"])
    opacity = 1 - render(camera, model, override_color=torch.zeros(60, 3), bg_color=torch.ones(3))["render"]
    torch.testing.assert_close(
        package["render_object"][16:], opacity[:1].expand(5, -1, -1), rtol=0, atol=1e-5
    )
    assert torch.equal(package["render"], plain["render"])
    weighted(package["render_object"]).backward()
    assert model.params["obj_dc"].grad is None and model.params["xyz"].grad is not None


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_every_parameter_that_takes_part_learns(degree: int) -> None:
    model = random_model(sh_degree=degree)
    package = render(camera_of("view.0"), model, bg_color=BLACK)
    (weighted(package["render"]) + weighted(package["render_object"])).backward()
    gradients = {name: parameter.grad for name, parameter in model.params.items()}
    active = (degree + 1) ** 2 - 1
    rest = gradients.pop("f_rest")
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    assert (
        (rest is None or not rest.any()) if active == 0 else bool(rest is not None and rest[:, :active].any())
    )
    assert rest is None or not rest[:, active:].any()
    moved = package["viewspace_points"].grad
    assert moved is not None and moved[:, :2].any() and not moved[~package["visibility_filter"]].any()


def test_identity_geometry_grad_decides_what_the_identity_map_moves() -> None:
    for moves in (True, False):
        model = random_model()
        package = render(camera_of("view.0"), model, bg_color=BLACK, identity_geometry_grad=moves)
        weighted(package["render_object"]).backward()
        for name in ("xyz", "opacity", "scaling", "rotation"):
            gradient = model.params[name].grad
            assert (gradient is not None and bool(gradient.any())) == moves, name
        assert model.params["obj_dc"].grad is not None and model.params["obj_dc"].grad.any()


def test_identity_encodings_carry_the_gradient_of_the_rendered_map_alone() -> None:
    """IGD's monitor: other terms on the encodings (L_3d) do not enter it."""
    model = random_model()
    package = render(camera_of("view.0"), model, bg_color=BLACK)
    weighted(package["render_object"]).backward()
    alone = model.params["obj_dc"].grad
    assert alone is not None
    torch.testing.assert_close(package["identity_encodings"].grad, alone, rtol=0, atol=0)
    model = random_model()
    package = render(camera_of("view.0"), model, bg_color=BLACK)
    (weighted(package["render_object"]) + model.get_objects.square().sum()).backward()
    torch.testing.assert_close(package["identity_encodings"].grad, alone, rtol=0, atol=0)
    total = model.params["obj_dc"].grad
    assert total is not None and not torch.equal(total, alone)


def test_rendering_without_gradients() -> None:
    with torch.no_grad():
        package = render(camera_of("view.0"), random_model(), bg_color=BLACK)
    assert not package["render"].requires_grad and not package["render_object"].requires_grad


def test_an_empty_model_shows_the_background() -> None:
    package = render(camera_of("view.0"), GaussianModel(3), bg_color=torch.tensor([0.1, 0.2, 0.3]))
    assert package["render"].flatten(1).unique(dim=1).flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert not package["render_object"].any()


def test_black_points_of_a_reconstruction_can_learn_a_colour() -> None:
    points = np.random.default_rng(0).normal(0, 0.3, (20, 3)) + [0.0, 0.0, 4.0]
    model = GaussianModel(3)
    model.create_from_pcd(BasicPointCloud(points, np.zeros((20, 3))), 1.0)
    package = render(camera_of("view.2"), model, bg_color=BLACK)
    package["render"].sum().backward()
    gradient = model.params["f_dc"].grad
    assert gradient is not None and (gradient[package["visibility_filter"]] > 0).all()


def test_contributions_are_what_maps_gain_from_each_gaussian() -> None:
    """The rendered indicator of a Gaussian, summed over a map, is what it contributes to that map."""
    model, camera = disc_model(), camera_of("view.0")
    maps = torch.rand(70, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))  # more than one pass
    found = contributions(camera, model, maps)
    assert found.shape == (model.num_gaussians, 70)
    seen = int(found[:, 0].argmax())
    indicator = torch.zeros_like(model.params["obj_dc"])
    indicator[seen, 0, 0] = 1.0
    with torch.no_grad():
        model.params["obj_dc"].copy_(indicator)
        alone = render(camera, model)["render_object"][0]
    torch.testing.assert_close(found[seen], torch.einsum("lhw,hw->l", maps, alone), rtol=1e-4, atol=1e-5)
