"""The CPU rasterizer against its PyTorch reference, and what must hold of both.

`reference.rasterize` is the definition. It is checked by gradcheck and by hand-computed conventions of 3DGS;
the core is checked against it, and by properties on scenes that are too large for it.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diff_gaussian_rasterization as rasterization
import pytest
import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, _core, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.submodules.rasterizer_scenes import (
    SMOOTH_MARGIN,
    balls,
    pack_symmetric,
    plain_camera,
    random_camera,
    random_gaussians,
    smooth_scene,
    threshold_margin,
)

Gaussians = dict[str, Tensor]
Settings = GaussianRasterizationSettings
Tensors = dict[str, Tensor]

OUTPUTS = ("color", "radii", "objects", "alpha", "depth")
DIFFERENTIABLE = ("color", "objects", "alpha", "depth")
F64_RTOL, F64_ATOL = 1e-9, 1e-11  # the latter of the largest entry: sums cancel
DETACHED_IDENTITY = dict(identity_geometry_grad=False)
pytestmark = pytest.mark.usefixtures("one_thread")


def core(gaussians: Gaussians, camera: Settings) -> Tensors:
    """Outputs of the C++ core by name."""
    return dict(zip(OUTPUTS, GaussianRasterizer(camera)(**gaussians, extra=True), strict=True))


def by_reference(gaussians: Gaussians, camera: Settings) -> Tensors:
    """Outputs of the reference by name."""
    return dict(zip(OUTPUTS, reference.rasterize(settings=camera, **gaussians), strict=True))


def leaves(gaussians: Gaussians) -> Gaussians:
    """Copies that collect gradients."""
    return {name: value.detach().clone().requires_grad_() for name, value in gaussians.items()}


def random_loss(outputs: Tensors, names: tuple[str, ...] = DIFFERENTIABLE) -> Tensor:
    """A fixed random linear function of the named outputs."""
    generator = torch.Generator().manual_seed(7)
    weights = {
        name: torch.randn(outputs[name].shape, generator=generator, dtype=torch.float64)
        for name in DIFFERENTIABLE
    }
    terms = [(outputs[name] * weights[name].to(outputs[name].dtype)).sum() for name in names]
    return torch.stack(terms).sum()


def run(
    renderer: Callable[[Gaussians, Settings], Tensors],
    gaussians: Gaussians,
    camera: Settings,
    names: tuple[str, ...] = DIFFERENTIABLE,
) -> tuple[Tensors, Tensors]:
    """Outputs, and gradients of `random_loss` by input."""
    inputs = leaves(gaussians)
    outputs = renderer(inputs, camera)
    random_loss(outputs, names).backward()
    gradients = {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in inputs.items()}
    return {name: value.detach() for name, value in outputs.items()}, gradients


def assert_close(actual: Tensors, expected: Tensors, rtol: float = F64_RTOL, atol: float = F64_ATOL) -> None:
    """Every tensor close, `atol` times the largest entry of the expected one."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max()) if value.numel() and value.is_floating_point() else 0.0
        close = torch.isclose(actual[name], value, rtol=rtol, atol=atol * scale)
        assert close.all(), f"{name}: {actual[name][~close][:5]}, expected {value[~close][:5]}"


def assert_core_matches(
    gaussians: Gaussians, camera: Settings, names: tuple[str, ...] = DIFFERENTIABLE
) -> tuple[Tensors, Tensors]:
    """Core and reference agree to float64 rounding, outputs and all gradients; returns the core's."""
    outputs, gradients = run(core, gaussians, camera, names)
    expected_outputs, expected_gradients = run(by_reference, gaussians, camera, names)
    assert_close(outputs, expected_outputs)
    assert_close(gradients, expected_gradients)
    return outputs, gradients


def scene(
    n: int = 40, width: int = 33, height: int = 18, degree: int = 1, channels: int = 3, **changes: Any
) -> tuple[Gaussians, Settings]:
    """A random float64 scene that meets clamps and thresholds, some of it off screen or behind the camera."""
    camera = random_camera(width, height, torch.float64, degree, principal=(0.05, -0.1), **changes)
    gaussians = random_gaussians(n, torch.float64, channels=max(channels, 1))
    if channels == 0:
        del gaussians["sh_objs"]
    return gaussians, camera


def with_precomputed(gaussians: Gaussians, *, colors: bool = False, covariances: bool = False) -> Gaussians:
    """The same Gaussians with random precomputed colours, or their own covariances precomputed."""
    changed = dict(gaussians)
    if colors:
        del changed["shs"]
        generator = torch.Generator().manual_seed(3)
        shape = gaussians["means3D"].shape
        changed["colors_precomp"] = torch.rand(shape, generator=generator, dtype=torch.float64)
    if covariances:
        scales, rotations = changed.pop("scales"), changed.pop("rotations")
        changed["cov3D_precomp"] = pack_symmetric(reference.covariances_3d(scales, rotations, 1.0))
    return changed


# The reference against finite differences.


@pytest.mark.parametrize(
    ("degree", "precomputed"),
    [
        (0, {}),
        (1, {}),
        (2, {}),
        (3, {}),
        (0, {"colors": True}),
        (0, {"covariances": True}),
    ],
)
def test_reference_passes_gradcheck(degree: int, precomputed: dict[str, bool]) -> None:
    gaussians, camera = smooth_scene(4, 20, 18, degree, channels=2)
    gaussians["shs"] = gaussians["shs"][:, : (degree + 1) ** 2]
    assert threshold_margin(gaussians, camera) > SMOOTH_MARGIN
    inputs = leaves(with_precomputed(gaussians, **precomputed))
    assert (by_reference(inputs, camera)["radii"] > 0).all()
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(2, 7, 18, 20, generator=generator, dtype=torch.float64)

    def projections(*values: Tensor) -> Tensor:  # a Jacobian of all pixels would say no more and take minutes
        outputs = by_reference(dict(zip(inputs, values, strict=True)), camera)
        pixels = torch.cat([outputs[name].reshape(-1, 18, 20) for name in DIFFERENTIABLE])  # (7,H,W)
        return (weights * pixels).sum((1, 2, 3))

    assert torch.autograd.gradcheck(projections, tuple(inputs.values()), eps=1e-6, atol=1e-6, rtol=1e-4)
    for name, gradient in zip(
        inputs, torch.autograd.grad(projections(*inputs.values()).sum(), list(inputs.values())), strict=True
    ):
        assert gradient.abs().max() > 0, f"{name} was not tested"


# The core against the reference, float64.


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("identity_geometry_grad", [True, False])
def test_core_is_the_reference_at_every_sh_degree(degree: int, identity_geometry_grad: bool) -> None:
    gaussians, camera = scene(degree=degree, identity_geometry_grad=identity_geometry_grad)
    outputs, gradients = assert_core_matches(gaussians, camera)
    assert (outputs["radii"] > 0).any() and (outputs["radii"] == 0).any()
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("channels", [0, 1, 3, 5, 16, 17, 64])
def test_core_is_the_reference_for_any_number_of_channels(channels: int) -> None:
    for changes in ({}, DETACHED_IDENTITY):
        outputs, _ = assert_core_matches(*scene(channels=channels, **changes))
        assert outputs["objects"].shape == (channels, 18, 33)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 1), (1, 33), (15, 31), (49, 7)])
def test_core_is_the_reference_for_any_image_size(size: tuple[int, int]) -> None:
    outputs, gradients = assert_core_matches(*scene(60, *size))
    assert gradients["opacities"].abs().max() > 0
    assert outputs["color"].shape == (3, size[1], size[0])


@pytest.mark.parametrize("names", [(name,) for name in DIFFERENTIABLE] + [("alpha", "depth")])
def test_core_is_the_reference_when_the_loss_uses_some_outputs(names: tuple[str, ...]) -> None:
    for changes in ({}, DETACHED_IDENTITY):
        _, gradients = assert_core_matches(*scene(**changes), names)
        assert (gradients["sh_objs"].abs().max() > 0) == ("objects" in names)
        assert (gradients["shs"].abs().max() > 0) == ("color" in names)


def test_identity_geometry_grad_off_leaves_geometry_to_the_other_outputs() -> None:
    gaussians, camera = scene(**DETACHED_IDENTITY)
    _, gradients = run(core, gaussians, camera, ("objects",))
    assert {name for name, gradient in gradients.items() if gradient.abs().max() > 0} == {"sh_objs"}


@pytest.mark.parametrize("precomputed", [{"colors": True}, {"covariances": True}])
def test_core_is_the_reference_with_precomputed_inputs(precomputed: dict[str, bool]) -> None:
    gaussians, camera = scene()
    _, gradients = assert_core_matches(with_precomputed(gaussians, **precomputed), camera)
    name = "colors_precomp" if "colors" in precomputed else "cov3D_precomp"
    assert gradients[name].abs().max() > 0


@pytest.mark.parametrize("modifier", [0.5, 2.0])
def test_core_is_the_reference_with_a_scale_modifier(modifier: float) -> None:
    gaussians, camera = scene(scale_modifier=modifier)
    outputs, gradients = assert_core_matches(gaussians, camera)
    scaled, _ = run(
        core, gaussians | {"scales": modifier * gaussians["scales"]}, camera._replace(scale_modifier=1.0)
    )
    assert_close(outputs, scaled)
    assert gradients["scales"].abs().max() > 0


@pytest.mark.parametrize("principal", [(0.0, 0.0), (0.6, 0.3), (-1.5, 0.9)])
def test_core_is_the_reference_for_any_principal_point(principal: tuple[float, float]) -> None:
    camera = random_camera(33, 18, torch.float64, 1, principal=principal)
    assert_core_matches(random_gaussians(40, torch.float64, channels=2), camera)


def test_core_is_the_reference_on_a_crowded_image() -> None:
    gaussians, camera = scene(500, 40, 29, channels=16)
    outputs, _ = assert_core_matches(gaussians, camera)
    assert (outputs["alpha"] > 0.999).any()  # some pixels come to the end of their transmittance


def opaque_scene() -> tuple[Gaussians, Settings]:
    """Pixels end one by one, some at a Gaussian that shows in no other pixel of their 4x4 block."""
    generator = torch.Generator().manual_seed(29)  # found by search: most seeds have no such pixel
    gaussians = random_gaussians(300, torch.float64, channels=1)
    shape = gaussians["opacities"].shape
    opacities = 0.9 + 0.09 * torch.rand(shape, generator=generator, dtype=torch.float64)
    means = gaussians["means3D"][torch.randperm(300, generator=generator)]
    changed = {"opacities": opacities, "means3D": means, "scales": 0.7 * gaussians["scales"]}
    return gaussians | changed, random_camera(16, 16, torch.float64, 0, principal=(0.0, 0.0))


def test_core_is_the_reference_among_opaque_gaussians() -> None:
    assert_core_matches(*opaque_scene())


def test_core_is_the_reference_with_thousands_in_one_tile() -> None:
    gaussians = random_gaussians(5000, torch.float64, channels=1, size=0.01)
    gaussians["means3D"] = 0.05 * gaussians["means3D"] + torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    gaussians["opacities"] = 0.02 * gaussians["opacities"]  # so that the far ones count too
    camera = random_camera(16, 16, torch.float64, 0)
    outputs, gradients = assert_core_matches(gaussians, camera)
    assert (outputs["radii"] > 0).all()
    assert (gradients["opacities"] != 0).sum() > 2000


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 24),
    n=st.integers(0, 12),
    channels=st.integers(0, 64),
    degree=st.integers(0, 3),
    identity_geometry_grad=st.booleans(),
)
def test_core_is_the_reference_for_any_shapes(
    width: int, height: int, n: int, channels: int, degree: int, identity_geometry_grad: bool
) -> None:
    changes = dict(identity_geometry_grad=identity_geometry_grad)
    assert_core_matches(*scene(n, width, height, degree, channels, **changes))


# Float32, instruction sets, threads.


def test_float32_differs_by_rounding() -> None:
    """Against the float64 reference of the same numbers.

    Rounding of the projection (1e-7, times the distance in standard deviations and the condition of the 2D
    covariance) moves alphas by some 1e-5, and it may put an alpha on the other side of 1/255, which moves a
    pixel by that much. Gradients of the shape are sums that cancel, hence the wider bound.
    """
    gaussians, camera = scene(150, 40, 29, degree=3, channels=16)
    single = {name: value.float() for name, value in gaussians.items()}
    camera32 = camera._replace(
        bg=camera.bg.float(),
        viewmatrix=camera.viewmatrix.float(),
        projmatrix=camera.projmatrix.float(),
        campos=camera.campos.float(),
    )
    outputs, gradients = run(core, single, camera32)
    doubled = {name: value.double() for name, value in single.items()}
    camera64 = camera32._replace(
        bg=camera32.bg.double(),
        viewmatrix=camera32.viewmatrix.double(),
        projmatrix=camera32.projmatrix.double(),
        campos=camera32.campos.double(),
    )
    expected, expected_gradients = run(by_reference, doubled, camera64)
    assert (outputs["radii"] - expected["radii"]).abs().max() <= 1
    assert (outputs["radii"] != expected["radii"]).sum() <= 1
    for name in DIFFERENTIABLE:
        error = (outputs[name].double() - expected[name]).abs()
        largest = expected[name].abs().max()
        assert error.max() <= largest / 255, name
        assert error.flatten().quantile(0.99) <= 1e-5 * largest, name
    for name, gradient in expected_gradients.items():
        error = (gradients[name].double() - gradient).norm() / gradient.norm()
        assert error <= 1e-3, f"{name}: {error}"


@pytest.mark.parametrize("isa", _core.instruction_sets())
def test_every_instruction_set_gives_the_same(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GS_RASTERIZER_ISA", isa)
    for channels in (0, 5, 16):
        assert_core_matches(*scene(channels=channels))
    gaussians, camera = random_gaussians(150, torch.float32), random_camera(40, 29, torch.float32)
    outputs, gradients = run(core, gaussians, camera)
    monkeypatch.setenv("GS_RASTERIZER_ISA", "baseline")
    expected, expected_gradients = run(core, gaussians, camera)
    for name in DIFFERENTIABLE:
        error = (outputs[name] - expected[name]).abs()
        assert error.max() <= expected[name].abs().max() / 255  # one alpha on the other side of its threshold
        assert error.flatten().quantile(0.99) <= 1e-5 * expected[name].abs().max()
    for name, gradient in expected_gradients.items():
        assert (gradients[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GS_RASTERIZER_ISA", "mmx")
    with pytest.raises(ValueError, match="mmx"):
        core(*scene())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [5, 16])
def test_the_number_of_threads_changes_no_bit(dtype: torch.dtype, channels: int) -> None:
    gaussians, camera = random_gaussians(1500, dtype, channels=channels), random_camera(70, 50, dtype)
    torch.set_num_threads(1)
    outputs, gradients = run(core, gaussians, camera)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        again, gradients_again = run(core, gaussians, camera)
        assert all(torch.equal(again[name], value) for name, value in outputs.items()), threads
        assert all(torch.equal(gradients_again[name], value) for name, value in gradients.items()), threads


# Properties.


def test_the_order_of_the_gaussians_is_irrelevant() -> None:
    gaussians, camera = scene(200, 40, 29, channels=16)
    assert gaussians["means3D"][:, 2].unique().numel() == 200  # equal depths are drawn in the order given
    outputs, gradients = run(core, gaussians, camera)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    permuted, permuted_gradients = run(core, {name: v[order] for name, v in gaussians.items()}, camera)
    for name in DIFFERENTIABLE:
        assert torch.equal(permuted[name], outputs[name]), name
    assert torch.equal(permuted["radii"], outputs["radii"][order])
    for name, gradient in gradients.items():
        assert torch.equal(permuted_gradients[name], gradient[order]), name


@pytest.mark.parametrize("renderer", [core, by_reference])
def test_the_length_of_a_quaternion_is_irrelevant(
    renderer: Callable[[Gaussians, Settings], Tensors],
) -> None:
    gaussians, camera = scene()
    outputs, gradients = run(renderer, gaussians, camera)
    longer = gaussians | {"rotations": 3 * gaussians["rotations"]}
    outputs_longer, gradients_longer = run(renderer, longer, camera)
    assert_close(outputs_longer, outputs)
    gradients_longer["rotations"] *= 3
    assert_close(gradients_longer, gradients)
    along = (gaussians["rotations"] * gradients["rotations"]).sum(1)
    assert gradients["rotations"].any() and along.abs().max() < 1e-9 * gradients["rotations"].abs().max()


@pytest.mark.parametrize("size", [1, 15, 16, 17])
def test_a_scene_need_not_fill_the_vectors(size: int) -> None:
    gaussians, camera = scene(40, channels=16, degree=3)
    assert_core_matches({name: value[:size] for name, value in gaussians.items()}, camera)


@pytest.mark.parametrize("renderer", [core, by_reference])
@pytest.mark.parametrize("empty", ["no Gaussians", "all behind", "all off screen"])
def test_nothing_in_view_shows_the_background(
    renderer: Callable[[Gaussians, Settings], Tensors], empty: str
) -> None:
    gaussians, camera = scene(0 if empty == "no Gaussians" else 5)
    gaussians["means3D"] = torch.tensor([0.0, 0.0, -5.0 if empty == "all behind" else 2.0]).double()
    gaussians["means3D"] = gaussians["means3D"].repeat(len(gaussians["opacities"]), 1)
    if empty == "all off screen":
        gaussians["means3D"][:, 0] = 50.0
    outputs, gradients = run(renderer, gaussians, camera)
    assert torch.equal(outputs["color"], camera.bg[:, None, None].expand(3, 18, 33))
    for name in ("objects", "alpha", "depth", "radii"):
        assert not outputs[name].any(), name
    assert not any(gradient.any() for gradient in gradients.values())


def test_one_gaussian_can_fill_the_image() -> None:
    camera = plain_camera(50, 37)
    gaussians = balls(
        camera,
        [(25.0, 18.0, 2.0)],
        opacities=torch.tensor([[0.7]]).double(),
        scales=torch.tensor([[1000.0, 800.0, 500.0]]).double(),
    )
    outputs, _ = assert_core_matches(gaussians, camera)
    torch.testing.assert_close(outputs["alpha"], torch.full((37, 50), 0.7).double(), rtol=0, atol=1e-6)


def test_more_than_65536_tiles() -> None:
    camera = plain_camera(4200, 4096, torch.float32)  # 263 x 256 tiles
    pixels = [(20.0, 20.0, 2.0), (2000.0, 70.0, 2.0), (4180.0, 4076.0, 2.0)]
    gaussians = balls(camera, pixels, scales=torch.full((3, 3), 1e-3))
    del gaussians["sh_objs"]
    inputs = leaves(gaussians)
    color, _, _ = GaussianRasterizer(camera)(**inputs)
    drawn = 0
    for x, y in [(int(x), int(y)) for x, y, _ in pixels]:
        assert color[0, y, x].item() == pytest.approx(0.5, abs=1e-4)
        drawn += int((color[0, y - 15 : y + 16, x - 15 : x + 16] > 0).sum())
    assert int((color[0] > 0).sum()) == drawn  # and nothing elsewhere
    color[0, 4076, 4180].backward()
    assert inputs["opacities"].grad is not None
    assert inputs["opacities"].grad.flatten().tolist() == [0.0, 0.0, pytest.approx(1.0, abs=1e-4)]


def test_an_opacity_of_zero_draws_nothing_and_learns_nothing() -> None:
    gaussians, camera = scene()
    gaussians["opacities"][::2] = 0
    outputs, gradients = assert_core_matches(gaussians, camera)
    without, _ = run(core, {name: value[1::2] for name, value in gaussians.items()}, camera)
    assert torch.equal(outputs["color"], without["color"])
    assert not any(gradient[::2].any() for gradient in gradients.values())


def test_radii_do_not_depend_on_opacity() -> None:
    gaussians, camera = scene()
    radii = core(gaussians, camera)["radii"]
    assert (radii > 0).sum() > 10
    for opacity in (0.0, 1e-3, 1.0):
        changed = gaussians | {"opacities": torch.full((40, 1), opacity, dtype=torch.float64)}
        assert torch.equal(core(changed, camera)["radii"], radii)


def test_what_is_not_in_view_learns_nothing() -> None:
    gaussians, camera = scene(200)
    outputs, gradients = run(core, gaussians, camera)
    unseen = outputs["radii"] == 0
    assert 0 < unseen.sum() < 200
    assert not any(gradient[unseen].any() for gradient in gradients.values())


def test_the_nearer_gaussian_is_in_front_whatever_its_index() -> None:
    camera = plain_camera(20, 20)
    red_near_blue_far = dict(
        colors_precomp=torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).double(),
        opacities=torch.full((2, 1), 0.75, dtype=torch.float64),
    )
    gaussians = balls(camera, [(10, 10, 2.0), (10, 10, 4.0)], **red_near_blue_far)
    for order in ([0, 1], [1, 0]):
        outputs = core({name: value[order] for name, value in gaussians.items()}, camera)
        expected = torch.tensor([0.75, 0.0, 0.25 * 0.75]).double()
        torch.testing.assert_close(outputs["color"][:, 10, 10], expected, rtol=1e-6, atol=1e-9)
        assert float(outputs["depth"][10, 10]) == pytest.approx(0.75 * 2 + 0.25 * 0.75 * 4, rel=1e-6)


def test_the_background_shows_through_what_alpha_leaves() -> None:
    gaussians, camera = scene()
    on_black = core(gaussians, camera._replace(bg=torch.zeros(3).double()))
    for background in (torch.ones(3).double(), torch.tensor([0.1, 0.9, 0.4]).double()):
        outputs = core(gaussians, camera._replace(bg=background))
        expected = on_black["color"] + (1 - on_black["alpha"]) * background[:, None, None]
        torch.testing.assert_close(outputs["color"], expected, rtol=0, atol=1e-14)
        assert torch.equal(outputs["objects"], on_black["objects"])


# Calls: what is refused, what may be left out, what may be repeated.


NAMED_IN_ERRORS = {"means3D", "opacities", "scales", "rotations", "shs", "sh_objs"}


def full_call(name: str) -> tuple[Gaussians, Settings]:
    """A valid call with one visible Gaussian that uses the input `name`."""
    camera = plain_camera(20, 20)
    gaussians = balls(camera, [(10, 10, 2.0)])
    if name == "shs":
        del gaussians["colors_precomp"]
        gaussians["shs"] = torch.zeros(1, 1, 3, dtype=torch.float64)
    if name == "cov3D_precomp":
        gaussians = with_precomputed(gaussians, covariances=True)
    return gaussians, camera


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*sorted(NAMED_IN_ERRORS), "colors_precomp", "cov3D_precomp"])
def test_nan_and_inf_are_refused_by_name(name: str, value: float) -> None:
    gaussians, camera = full_call(name)
    core(gaussians, camera)
    gaussians[name].view(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"NaN or Inf in: .*{name}"):
        core(gaussians, camera)


@pytest.mark.parametrize("name", ["bg", "viewmatrix", "projmatrix", "campos"])
def test_nan_in_the_camera_is_refused_by_name(name: str) -> None:
    gaussians, camera = full_call("shs")
    broken = getattr(camera, name).clone()
    broken.view(-1)[1] = math.nan
    with pytest.raises(ValueError, match=f"NaN or Inf in: {name}"):
        core(gaussians, camera._replace(**{name: broken}))
    with pytest.raises(ValueError, match=f"{name} has shape"):
        core(gaussians, camera._replace(**{name: broken[:1]}))


@pytest.mark.parametrize("name", [*sorted(NAMED_IN_ERRORS), "colors_precomp", "cov3D_precomp", "means2D"])
def test_wrong_dtypes_devices_and_shapes_are_refused_by_name(name: str) -> None:
    gaussians, camera = full_call(name)
    value = gaussians[name]
    wrong = {
        "shape": [torch.cat([value, value])],
        "dtype": [value.half(), value.int()],
        "device": [value.to("meta")],
    }
    if name == "means3D":
        wrong["shape"] = [value[:, :2], value[0], value.new_zeros(())]
    elif name != "opacities":
        wrong["shape"].append(
            torch.cat([value, value], -1)[..., :-1] if name != "sh_objs" else value.new_zeros(3)
        )
    if name != "means3D":
        wrong["dtype"].append(value.float())
    for bad in [tensor for tensors in wrong.values() for tensor in tensors]:
        with pytest.raises(ValueError, match=name):
            core(gaussians | {name: bad}, camera)


def test_contradictory_or_missing_inputs_are_refused() -> None:
    gaussians, camera = full_call("shs")
    colors, covariances = torch.zeros(1, 3).double(), torch.zeros(1, 6).double()
    with pytest.raises(ValueError, match="shs and colors_precomp"):
        core(gaussians | {"colors_precomp": colors}, camera)
    with pytest.raises(ValueError, match="scales, rotations and cov3D_precomp"):
        core(gaussians | {"cov3D_precomp": covariances}, camera)
    for name in ("shs", "scales", "rotations"):
        with pytest.raises(ValueError, match=name):
            core({key: value for key, value in gaussians.items() if key != name}, camera)
    with pytest.raises(ValueError, match=r"sh_degree 2 .* needs 9"):
        core(gaussians, camera._replace(sh_degree=2))
    with pytest.raises(ValueError, match="sh_objs has 65 channels"):
        core(gaussians | {"sh_objs": torch.zeros(1, 65).double()}, camera)
    with pytest.raises(ValueError, match="image size 0x20"):
        core(gaussians, camera._replace(image_width=0))


@pytest.mark.parametrize("degree", [0, 2])
def test_sh_coefficients_may_come_as_a_pair(degree: int) -> None:
    gaussians, camera = scene(degree=degree)
    whole = leaves(gaussians)
    outputs = core(whole, camera)
    random_loss(outputs).backward()
    parts = leaves(gaussians)
    dc, rest = (gaussians["shs"][:, part].clone().requires_grad_() for part in (slice(0, 1), slice(1, None)))
    paired = core({**parts, "shs": (dc, rest)}, camera)  # type: ignore[dict-item]
    random_loss(paired).backward()
    assert all(torch.equal(paired[name], value) for name, value in outputs.items())
    assert dc.grad is not None and whole["shs"].grad is not None
    rest_gradient = torch.zeros_like(rest) if rest.grad is None else rest.grad
    assert torch.equal(torch.cat([dc.grad, rest_gradient], 1), whole["shs"].grad)
    assert torch.equal(parts["means3D"].grad, whole["means3D"].grad)  # type: ignore[arg-type]


def test_inputs_may_be_strided() -> None:
    gaussians, camera = scene()
    outputs, gradients = run(core, gaussians, camera)
    strided = {
        name: value.transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        for name, value in gaussians.items()
    }
    assert not strided["shs"].is_contiguous()
    again = core(strided, camera)
    random_loss(again).backward()
    assert all(torch.equal(again[name], value) for name, value in outputs.items())
    assert all(torch.equal(strided[name].grad, value) for name, value in gradients.items())  # type: ignore[arg-type]


def test_extra_outputs_change_nothing_else() -> None:
    gaussians, camera = scene()
    outputs = core(gaussians, camera)
    color, radii, objects = GaussianRasterizer(camera)(**gaussians)
    assert torch.equal(color, outputs["color"])
    assert torch.equal(radii, outputs["radii"]) and radii.dtype == torch.int32
    assert torch.equal(objects, outputs["objects"])


def test_backward_can_be_repeated() -> None:
    gaussians, camera = scene()
    inputs = leaves(gaussians)
    loss = random_loss(core(inputs, camera))
    first = torch.autograd.grad(loss, list(inputs.values()), retain_graph=True)
    second = torch.autograd.grad(loss, list(inputs.values()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    gaussians, camera = scene()
    inputs = leaves(gaussians)
    loss = core(inputs, camera)["color"].square().sum()
    (gradient,) = torch.autograd.grad(loss, inputs["means3D"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_renders_in_flight_do_not_mix() -> None:
    """Two forward passes, a third that is dropped, then both backward passes, as in a batch of views."""
    first, second = scene(30, 33, 18), scene(50, 20, 40, channels=16)
    expected = [run(core, *first), run(core, *second)]
    inputs = [leaves(first[0]), leaves(second[0])]
    losses = [
        random_loss(core(leaf, camera)) for leaf, (_, camera) in zip(inputs, (first, second), strict=True)
    ]
    with torch.no_grad():
        core(*scene(80))
    for loss in reversed(losses):
        loss.backward()
    for leaf, (_, gradients) in zip(inputs, expected, strict=True):
        for name, value in gradients.items():
            torch.testing.assert_close(leaf[name].grad, value, rtol=0, atol=0)


def test_several_python_threads_may_render() -> None:
    scenes = [scene(n, 40, 29, channels=16) for n in (20, 40, 60, 80)]
    expected = [run(core, *each) for each in scenes]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda index: run(core, *scenes[index % 4]), range(16)))
    for index, results_of_one in enumerate(results):
        for actual, wanted in zip(results_of_one, expected[index % 4], strict=True):
            assert all(torch.equal(actual[name], value) for name, value in wanted.items())


def test_a_training_loop_needs_one_frame() -> None:
    gaussians, camera = scene()
    run(core, gaussians, camera)
    gc.collect()
    frames = len(rasterization._FrameLease.pool)
    for _ in range(3):
        run(core, gaussians, camera)
    assert len(rasterization._FrameLease.pool) == frames


def test_rendering_without_gradients() -> None:
    gaussians, camera = scene()
    expected = core(gaussians, camera)
    with torch.no_grad():
        outputs = core(leaves(gaussians), camera)
    assert not any(value.requires_grad for value in outputs.values())
    assert all(torch.equal(outputs[name], value) for name, value in expected.items())


def test_only_the_inputs_that_ask_get_gradients() -> None:
    gaussians, camera = scene()
    inputs = gaussians | {"sh_objs": gaussians["sh_objs"].clone().requires_grad_()}
    random_loss(core(inputs, camera)).backward()
    _, gradients = run(core, gaussians, camera)
    assert torch.equal(inputs["sh_objs"].grad, gradients["sh_objs"])  # type: ignore[arg-type]


def test_mark_visible_is_the_near_plane() -> None:
    camera = plain_camera(20, 20)
    points = torch.tensor([[0, 0, 0.2], [0, 0, 0.2 + 1e-6], [9, 9, 1], [0, 0, -1]], dtype=torch.float64)
    assert GaussianRasterizer(camera).markVisible(points).tolist() == [False, True, True, False]


# Conventions of 3DGS, by hand.


both = pytest.mark.parametrize("renderer", [core, by_reference])
Renderer = Callable[[Gaussians, Settings], Tensors]


@both
def test_pixel_centres_and_principal_point(renderer: Renderer) -> None:
    """The centre lands on fx x/z + cx - 0.5, pixel i having its centre at i: COLMAP's convention."""
    width, height, cx, cy = 40, 30, 23.5, 11.0
    camera = plain_camera(width, height)
    camera.projmatrix[2, 0], camera.projmatrix[2, 1] = 2 * cx / width - 1, 2 * cy / height - 1
    point = torch.tensor([[-0.2, 0.1, 2.0]]).double()
    x, y = width * -0.2 / 2 + cx - 0.5, width * 0.1 / 2 + cy - 0.5
    assert (x, y) == (19.0, 12.5)
    outputs = renderer(balls(camera, [(0, 0, 2.0)]) | {"means3D": point}, camera)
    at_row = outputs["alpha"][:, 19]
    assert float(at_row[12]) == pytest.approx(float(at_row[13]), rel=1e-6)  # halfway between two pixels
    variance = float((0.05 * width / 2) ** 2 * (1 + 0.05**2) + 0.3)
    assert float(at_row[12]) == pytest.approx(0.5 * math.exp(-0.125 / variance), rel=1e-3)


@both
def test_the_low_pass_filter_is_0_3_square_pixels(renderer: Renderer) -> None:
    camera = plain_camera(21, 21)
    outputs = renderer(balls(camera, [(10, 10, 2.0)], scales=torch.full((1, 3), 1e-9).double()), camera)
    alpha = outputs["alpha"]
    assert float(alpha[10, 10]) == pytest.approx(0.5, rel=1e-6)
    assert float(alpha[10, 11]) == pytest.approx(0.5 * math.exp(-0.5 / 0.3), rel=1e-5)
    assert float(alpha[11, 11]) == pytest.approx(0.5 * math.exp(-1 / 0.3), rel=1e-5)
    assert not alpha[10, 12]  # 0.5 exp(-2 / 0.3) is below 1/255


@both
def test_alpha_is_at_most_0_99_and_passes_its_gradient(renderer: Renderer) -> None:
    camera = plain_camera(21, 21)
    inputs = leaves(balls(camera, [(10, 10, 2.0)], opacities=torch.ones(1, 1).double()))
    alpha = renderer(inputs, camera)["alpha"]
    assert alpha.max().item() == alpha[10, 10].item() == pytest.approx(0.99, rel=1e-12)
    alpha[10, 10].backward()
    assert inputs["opacities"].grad is not None
    assert float(inputs["opacities"].grad) == pytest.approx(1.0, rel=1e-6)


@both
def test_a_pixel_ends_before_its_transmittance_falls_below_1e_4(renderer: Renderer) -> None:
    camera = plain_camera(21, 21)
    stack = [(10.0, 10.0, 2.0 + 0.1 * i) for i in range(5)]
    inputs = leaves(balls(camera, stack, opacities=torch.full((5, 1), 0.95).double()))
    outputs = renderer(inputs, camera)
    # 0.05^3 = 1.25e-4 is left behind the third; the fourth would leave 6e-6.
    assert outputs["alpha"][10, 10].item() == pytest.approx(1 - 0.05**3, rel=1e-9)
    outputs["color"][0, 10, 10].backward()
    assert inputs["colors_precomp"].grad is not None
    assert (inputs["colors_precomp"].grad[:, 0] > 0).tolist() == [True, True, True, False, False]


@both
def test_the_near_plane_is_at_0_2(renderer: Renderer) -> None:
    camera = plain_camera(21, 21)
    assert renderer(balls(camera, [(10, 10, 0.2)]), camera)["radii"].tolist() == [0]
    assert renderer(balls(camera, [(10, 10, 0.2 + 1e-6)]), camera)["radii"][0] > 0


@both
@pytest.mark.parametrize("scale", [0.01, 0.1, 0.37])
def test_radii_are_three_standard_deviations_rounded_up(renderer: Renderer, scale: float) -> None:
    camera = plain_camera(100, 100)
    flat = torch.tensor([[scale, 1e-9, 1e-9]]).double()
    (radius,) = renderer(balls(camera, [(49.5, 49.5, 2.0)], scales=flat), camera)["radii"].tolist()
    wide, narrow = (100 * scale / 2) ** 2 + 0.3, 0.3
    middle = (wide + narrow) / 2
    largest = middle + math.sqrt(
        max(0.1, middle**2 - wide * narrow)
    )  # the eigenvalue, with 3DGS's floor under the root
    assert radius == math.ceil(3 * math.sqrt(largest))
    assert 3 * math.sqrt(wide) <= radius <= 3 * math.sqrt(wide + math.sqrt(0.1)) + 1


@pytest.mark.parametrize("axis", [0, 1])
def test_the_screen_space_gradient_is_in_ndc(axis: int) -> None:
    """Moving the principal point by d in NDC moves every Gaussian by d in NDC and changes nothing else."""
    gaussians, camera = smooth_scene(4, 20, 18, 1, channels=2)
    _, gradients = run(core, gaussians, camera)
    step, losses = 1e-6, []
    for sign in (1, -1):
        projection = torch.linalg.solve(camera.viewmatrix, camera.projmatrix)
        projection[2, axis] += sign * step  # ndc = (x / tan + principal z) / z
        losses.append(
            random_loss(core(gaussians, camera._replace(projmatrix=camera.viewmatrix @ projection)))
        )
    expected = float(losses[0] - losses[1]) / (2 * step)
    assert float(gradients["means2D"][:, axis].sum()) == pytest.approx(expected, rel=1e-5)
    assert not gradients["means2D"][:, 2].any()
