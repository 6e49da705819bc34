"""The CUDA rasterizer against the PyTorch reference: on the CPU shim, and on a GPU where there is one.

On the shim the same .cu sources run in float64, so that they agree with the reference to rounding, and every
access is checked: bounds, races, barriers (tests/cuda_shim). The GPU has float32, which is held to bounds
that rounding explains; the shim runs in float32, too, so that no test meets these bounds for the first time
on a GPU. What does not depend on the device is tested in test_rasterizer.py.
"""

from __future__ import annotations

import contextlib
import gc
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diff_gaussian_rasterization as rasterization
import pytest
import torch
from diff_gaussian_rasterization import cuda
from diff_gaussian_rasterization.availability import cuda_problem
from torch.utils._pytree import tree_map

from tests.cuda_shim import build
from tests.submodules.rasterizer_scenes import balls, plain_camera, random_camera, random_gaussians
from tests.submodules.test_rasterizer import (
    DETACHED_IDENTITY,
    DIFFERENTIABLE,
    Gaussians,
    Settings,
    Tensors,
    assert_close,
    by_reference,
    core,
    full_call,
    leaves,
    opaque_scene,
    random_loss,
    run,
    scene,
    with_precomputed,
)

CSRC = Path(__file__).parents[2] / "submodules/diff-gaussian-rasterization/csrc"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def shim() -> build.Shim:
    """The CUDA part, compiled as C++; a minute of a busy processor the first time, then cached."""
    sources = [CSRC / "cuda/bindings.cpp", CSRC / "cuda/rasterizer.cu"]
    # A name of its own: nanobind knows the Workspace of a package that was built with CUDA already.
    defines = ["GS_CUDA_DOUBLE", "Workspace=ShimWorkspace"]
    return build.extension("_cuda", sources, include=[CSRC], defines=defines)


class Backend(ABC):
    """Where the kernels run."""

    @abstractmethod
    def render(self, gaussians: Gaussians, camera: Settings) -> Tensors:
        """Outputs by name; float64 tensors of the CPU in and out, between which gradients flow."""

    @contextlib.contextmanager
    def watch(self, gaussians: Gaussians, camera: Settings, order: int = 0) -> Iterator[None]:
        """Where accesses can be checked: launches inside are, and threads and blocks run in this order."""
        yield

    def run(
        self, gaussians: Gaussians, camera: Settings, names: tuple[str, ...] = DIFFERENTIABLE, order: int = 0
    ) -> tuple[Tensors, Tensors]:
        """As `test_rasterizer.run`."""
        with self.watch(gaussians, camera, order):
            return run(self.render, gaussians, camera, names)

    @abstractmethod
    def assert_close(self, actual: Tensors, expected: Tensors) -> None:
        """Equal up to rounding."""

    def assert_matches(
        self, gaussians: Gaussians, camera: Settings, names: tuple[str, ...] = DIFFERENTIABLE, order: int = 0
    ) -> tuple[Tensors, Tensors]:
        """Outputs and all gradients are the reference's; returns the backend's."""
        outputs, gradients = self.run(gaussians, camera, names, order)
        expected_outputs, expected_gradients = run(by_reference, gaussians, camera, names)
        self.assert_close(outputs, expected_outputs)
        self.assert_close(gradients, expected_gradients)
        return outputs, gradients


class OnShim(Backend):
    def __init__(self, shim: build.Shim, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shim = shim
        monkeypatch.setattr(cuda, "_cuda", shim.module)
        monkeypatch.setattr(cuda, "_use", lambda device: contextlib.nullcontext())
        monkeypatch.setattr(cuda, "_stream", lambda device: 0)
        monkeypatch.setattr(rasterization, "_FrameLease", lambda: cuda.Frame(torch.device("cpu")))

    def render(self, gaussians: Gaussians, camera: Settings) -> Tensors:
        return core(gaussians, camera)

    @contextlib.contextmanager
    def watch(self, gaussians: Gaussians, camera: Settings, order: int = 0) -> Iterator[None]:
        """Launches are checked; working memory is made anew, since the checks know what is made inside."""
        gc.collect()
        cuda.Frame.pool.clear()
        cuda.Frame.gradients.clear()
        tensors = [*gaussians.values(), camera.viewmatrix, camera.projmatrix, camera.campos, camera.bg]
        with self.shim.watch(*tensors, order=order):
            yield

    def assert_close(self, actual: Tensors, expected: Tensors) -> None:
        assert_close(actual, expected)


class OnShimInFloat32(OnShim):
    def render(self, gaussians: Gaussians, camera: Settings) -> Tensors:
        return in_float32(gaussians, camera, "cpu")

    def assert_close(self, actual: Tensors, expected: Tensors) -> None:
        assert_close_in_float32(actual, expected)


class OnGpu(Backend):
    def render(self, gaussians: Gaussians, camera: Settings) -> Tensors:
        return in_float32(gaussians, camera, "cuda")

    def assert_close(self, actual: Tensors, expected: Tensors) -> None:
        assert_close_in_float32(actual, expected)


def in_float32(gaussians: Gaussians, camera: Settings, device: str) -> Tensors:
    """Outputs by name, float64 on the CPU, of a call in float32 on `device`."""
    given: dict[str, Any] = tree_map(lambda value: value.to(device, torch.float32), gaussians)
    outputs = core(given, single_camera(camera, device))
    return {k: v.cpu() if k == "radii" else v.to("cpu", torch.float64) for k, v in outputs.items()}


def single_camera(camera: Settings, device: str) -> Settings:
    """The camera's tensors on the device, float32."""
    names = ("bg", "viewmatrix", "projmatrix", "campos")
    return camera._replace(**{name: getattr(camera, name).to(device, torch.float32) for name in names})


def assert_close_in_float32(actual: Tensors, expected: Tensors) -> None:
    """Within what rounding can do; `test_rasterizer.test_float32_differs_by_rounding` says where from."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if name == "radii":
            assert (actual[name] - value).abs().max() <= 1 if value.numel() else True
            continue
        error, largest = (
            (actual[name].double() - value).abs(),
            float(value.abs().max()) if value.numel() else 0.0,
        )
        if name in DIFFERENTIABLE:
            assert (error <= largest / 255).all(), name
            assert not error.numel() or error.flatten().quantile(0.99) <= 2e-5 * largest, name
        else:
            assert error.norm() <= 1e-3 * value.norm(), f"{name}: {error.norm() / value.norm()}"


needs_gpu = pytest.mark.skipif(cuda_problem() is not None, reason=f"no GPU: {cuda_problem()}")


@pytest.fixture(params=["shim", "shim-float32", pytest.param("gpu", marks=[needs_gpu, pytest.mark.gpu])])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Each place where the kernels can run here."""
    if request.param == "gpu":
        return OnGpu()
    kind = OnShim if request.param == "shim" else OnShimInFloat32
    return kind(request.getfixturevalue("shim"), monkeypatch)


@pytest.fixture
def on_shim(shim: build.Shim, monkeypatch: pytest.MonkeyPatch) -> OnShim:
    """For what only the shim can show."""
    return OnShim(shim, monkeypatch)


# Against the reference.


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("identity_geometry_grad", [True, False])
def test_every_sh_degree(backend: Backend, degree: int, identity_geometry_grad: bool) -> None:
    gaussians, camera = scene(degree=degree, identity_geometry_grad=identity_geometry_grad)
    outputs, gradients = backend.assert_matches(gaussians, camera)
    assert (outputs["radii"] > 0).any() and (outputs["radii"] == 0).any()
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("channels", [0, 1, 8, 9, 16, 17, 40, 64])
def test_any_number_of_channels(backend: Backend, channels: int) -> None:
    for changes in ({}, DETACHED_IDENTITY):
        outputs, _ = backend.assert_matches(*scene(channels=channels, **changes))
        assert outputs["objects"].shape == (channels, 18, 33)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 1), (1, 33), (15, 31), (49, 7)])
def test_any_image_size(backend: Backend, size: tuple[int, int]) -> None:
    outputs, gradients = backend.assert_matches(*scene(60, *size))
    assert gradients["opacities"].abs().max() > 0
    assert outputs["color"].shape == (3, size[1], size[0])


@pytest.mark.parametrize("names", [("color",), ("objects",), ("alpha", "depth")])
def test_a_loss_of_some_outputs(backend: Backend, names: tuple[str, ...]) -> None:
    for changes in ({}, DETACHED_IDENTITY):
        _, gradients = backend.assert_matches(*scene(channels=20, **changes), names)
        assert (gradients["sh_objs"].abs().max() > 0) == ("objects" in names)
        assert (gradients["shs"].abs().max() > 0) == ("color" in names)


@pytest.mark.parametrize("precomputed", [{"colors": True}, {"covariances": True}])
def test_precomputed_inputs(backend: Backend, precomputed: dict[str, bool]) -> None:
    gaussians, camera = scene()
    _, gradients = backend.assert_matches(with_precomputed(gaussians, **precomputed), camera)
    name = "colors_precomp" if "colors" in precomputed else "cov3D_precomp"
    assert gradients[name].abs().max() > 0


@pytest.mark.parametrize("principal", [(0.0, 0.0), (0.6, 0.3), (-1.5, 0.9)])
def test_any_principal_point(backend: Backend, principal: tuple[float, float]) -> None:
    camera = random_camera(33, 18, torch.float64, 1, principal=principal, scale_modifier=1.3)
    backend.assert_matches(random_gaussians(40, torch.float64, channels=2), camera)


def test_sh_coefficients_as_a_pair(backend: Backend) -> None:
    gaussians, camera = scene(degree=1)
    outputs, gradients = backend.run(gaussians, camera)
    shs = gaussians.pop("shs")
    gaussians |= {"dc": shs[:, :1].clone(), "rest": shs[:, 1:].clone()}

    def render(parts: Gaussians, camera: Settings) -> Tensors:
        given = {name: value for name, value in parts.items() if name not in ("dc", "rest")}
        return backend.render({**given, "shs": (parts["dc"], parts["rest"])}, camera)  # type: ignore[dict-item]

    with backend.watch(gaussians, camera):
        again, gradients_again = run(render, gaussians, camera)
    assert all(torch.equal(again[name], value) for name, value in outputs.items())
    assert torch.equal(torch.cat([gradients_again["dc"], gradients_again["rest"]], 1), gradients["shs"])


# Scenes that stress one stage.


def oval(count: int, size: float = 0.05) -> torch.Tensor:
    """(count, 3) scales of one shape that is not round: the gradient by a ball's rotation is all rounding."""
    return size * torch.tensor([[1.0, 0.8, 0.7]]).double().repeat(count, 1)


def test_opaque_gaussians(backend: Backend) -> None:
    backend.assert_matches(*opaque_scene())


def test_a_crowded_image(backend: Backend) -> None:
    outputs, _ = backend.assert_matches(*scene(500, 40, 29, channels=16))
    assert (outputs["alpha"] > 0.999).any()  # some pixels come to the end of their transmittance


def test_thousands_in_one_tile(backend: Backend) -> None:
    """Faint ones, so that the far ones count too; every other at the same depth: those keep their order."""
    gaussians = random_gaussians(5000, torch.float64, channels=1, size=0.01)
    gaussians["means3D"] = 0.05 * gaussians["means3D"] + torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    gaussians["opacities"] = 0.02 * gaussians["opacities"]
    camera = plain_camera(16, 16)
    gaussians["means3D"][::2, 2] = 2.0
    outputs, gradients = backend.assert_matches(gaussians, camera)
    assert (outputs["radii"] > 0).all()
    assert (gradients["opacities"] != 0).sum() > 2000


def test_one_gaussian_over_many_tiles(backend: Backend) -> None:
    """156 tiles, listed and summed by whole warps, among small ones."""
    camera = plain_camera(200, 180)
    large = balls(camera, [(25.0, 18.0, 3.0)], scales=torch.tensor([[2.0, 1.8, 1.0]]).double())
    small = balls(camera, [(50.0 + i, 100.0 - i, 2.0 + 0.001 * i) for i in range(40)], scales=oval(40))
    gaussians = {name: torch.cat([small[name], large[name]]) for name in small}
    outputs, gradients = backend.assert_matches(gaussians, camera)
    assert (outputs["alpha"] > 0.09).all()
    assert gradients["opacities"][-1] != 0


def test_a_warp_of_gaussians_over_many_tiles(backend: Backend) -> None:
    """One at every lane, each over 130 tiles: whole warps sum the rows of each in turn. One pixel row.

    Without the `__syncwarp` before that loop of `gather_rows` (gaussians.h) it fails on the shim, in float64
    and float32 alike, by a race between the two stores to `sums`; the test above passes. Tried on 2026-11-29.
    """
    camera = plain_camera(2080, 1)
    gaussians = balls(camera, [(1040.0 + i, 0.0, 2.0 + 0.01 * i) for i in range(33)], scales=oval(33, 2.0))
    gaussians["opacities"][:] = torch.linspace(0.05, 0.1, 33)[:, None].double()
    outputs, gradients = backend.assert_matches(gaussians, camera)
    assert (outputs["alpha"] > 0.5).all()
    assert (gradients["opacities"] != 0).all()


@pytest.mark.parametrize("empty", ["no Gaussians", "all behind", "all off screen"])
def test_nothing_in_view_shows_the_background(backend: Backend, empty: str) -> None:
    gaussians, camera = scene(0 if empty == "no Gaussians" else 5)
    gaussians["means3D"] = torch.tensor([0.0, 0.0, -5.0 if empty == "all behind" else 2.0]).double()
    gaussians["means3D"] = gaussians["means3D"].repeat(len(gaussians["opacities"]), 1)
    if empty == "all off screen":
        gaussians["means3D"][:, 0] = 50.0
    outputs, gradients = backend.assert_matches(gaussians, camera)
    assert not outputs["alpha"].any() and not outputs["radii"].any()
    assert not any(gradient.any() for gradient in gradients.values())


def test_near_plane_frustum_clamp_and_opaque_pixels(backend: Backend) -> None:
    camera = plain_camera(40, 33)
    pixels = [(20.0, 16.0, 0.2), (20.0, 16.0, 0.2 + 1e-4)]  # at the near plane, and just beyond it
    pixels += [(20.0 + x, 16.0, 3.0) for x in (-28.0, -26.1, 26.1, 28.0, 60.0)]  # clamped: beyond 26 pixels
    pixels += [(10.0, 10.0, 2.0 + 0.1 * i) for i in range(5)]  # the third would take the pixel to 5e-5
    gaussians = balls(camera, pixels, scales=oval(12, 0.1))
    gaussians["opacities"][:2] = 0.05
    gaussians["scales"][:2] *= 0.02
    gaussians["scales"][2:7] *= 10
    gaussians["opacities"][7:, 0] = torch.tensor([1.0, 0.9, 0.95, 1.0, 1.0])  # 1 is clamped to 0.99
    outputs, gradients = backend.assert_matches(gaussians, camera)
    assert outputs["radii"][0] == 0 and outputs["radii"][1] > 0
    assert (gradients["colors_precomp"][7:, 0] != 0).tolist()[:2] == [True, True]


def test_more_than_65535_tiles(backend: Backend) -> None:
    """Keys of 32 bits; an image of one pixel row, so that the tiles are nearly empty."""
    camera = plain_camera(1 << 20, 1)
    places = [20, (1 << 19) + 3, (1 << 20) - 9]
    gaussians = balls(
        camera, [(float(x), 0.0, 2.0) for x in places], scales=torch.full((3, 3), 4e-6).double()
    )
    del gaussians["sh_objs"]
    with backend.watch(gaussians, camera):
        alpha, drawn = backend.render(gaussians, camera)["alpha"][0], 0
    for x in places:
        assert alpha[x].item() == pytest.approx(0.5, abs=0.02)  # float32 places it to a tenth of a pixel
        drawn += int((alpha[x - 8 : x + 9] > 0).sum())
    assert int((alpha > 0).sum()) == drawn  # and nothing elsewhere


# The kernels' own promises.


@pytest.mark.parametrize("channels", [0, 16])
def test_the_order_of_threads_and_blocks_changes_no_bit(on_shim: OnShim, channels: int) -> None:
    gaussians, camera = scene(100, 33, 18, channels=channels)
    outputs, gradients = on_shim.run(gaussians, camera)
    for order in (1, 5):  # backwards, shuffled
        again, gradients_again = on_shim.run(gaussians, camera, order=order)
        assert all(torch.equal(again[name], value) for name, value in outputs.items()), order
        assert all(torch.equal(gradients_again[name], value) for name, value in gradients.items()), order


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_repeats_every_bit() -> None:
    gaussians, camera = scene(20000, 333, 257, channels=16)
    outputs, gradients = OnGpu().run(gaussians, camera)
    for _ in range(3):
        again, gradients_again = OnGpu().run(gaussians, camera)
        assert all(torch.equal(again[name], value) for name, value in outputs.items())
        assert all(torch.equal(gradients_again[name], value) for name, value in gradients.items())


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_agrees_with_the_cpu_core() -> None:
    gaussians, camera = scene(20000, 333, 257, degree=3, channels=16)
    outputs, gradients = OnGpu().run(gaussians, camera)
    expected, expected_gradients = run(core, gaussians, camera)
    assert_close_in_float32(outputs, expected)
    assert_close_in_float32(gradients, expected_gradients)


def test_renders_in_flight_do_not_mix(on_shim: OnShim) -> None:
    first, second = scene(30, 33, 18), scene(50, 20, 40, channels=16)
    expected = [on_shim.run(*first), on_shim.run(*second)]
    with on_shim.watch(*first):
        for tensor in (*second[0].values(), second[1].viewmatrix, second[1].projmatrix):
            on_shim.shim.register(tensor)
        inputs = [leaves(first[0]), leaves(second[0])]
        cameras = [first[1], second[1]._replace(campos=first[1].campos, bg=first[1].bg)]
        losses = [random_loss(core(leaf, camera)) for leaf, camera in zip(inputs, cameras, strict=True)]
        for loss in reversed(losses):
            loss.backward()
    for leaf, (_, gradients) in zip(inputs, expected, strict=True):
        for name, value in gradients.items():
            torch.testing.assert_close(leaf[name].grad, value, rtol=0, atol=0)


def test_working_memory_grows_and_stays(on_shim: OnShim) -> None:
    gaussians, camera = scene(60)

    def addresses() -> list[int]:
        core(leaves(gaussians), camera)
        gc.collect()
        (memories,) = cuda.Frame.pool.values()
        (memory,) = memories
        return [tensor.data_ptr() for tensor in memory.tensors.values()]

    with on_shim.watch(gaussians, camera):
        first = addresses()
        assert addresses() == first
        gaussians, camera = scene(600)
        assert addresses() != first


def test_a_backward_pass_makes_no_buffer_of_its_own(on_shim: OnShim, monkeypatch: pytest.MonkeyPatch) -> None:
    gaussians, camera = scene(60)
    made: list[torch.device] = []

    class Counted(cuda._Memory):
        def __init__(self, device: torch.device) -> None:
            made.append(device)
            super().__init__(device)

    monkeypatch.setattr(cuda, "_Memory", Counted)
    with on_shim.watch(gaussians, camera):
        for _ in range(3):
            random_loss(core(leaves(gaussians), camera)).backward()
            gc.collect()
    assert len(made) == 2  # one of frames, one of gradients


# What is refused, and how.


@pytest.mark.parametrize(
    "name",
    ["means3D", "opacities", "scales", "rotations", "shs", "sh_objs", "colors_precomp", "cov3D_precomp"],
)
def test_nan_is_refused_by_name(backend: Backend, name: str) -> None:
    gaussians, camera = full_call(name)
    gaussians[name].view(-1)[-1] = float("nan")
    with pytest.raises(ValueError, match=rf"NaN or Inf in: .*{name}"):
        backend.run(gaussians, camera)


@pytest.mark.parametrize("name", ["bg", "viewmatrix", "projmatrix", "campos"])
def test_nan_in_the_camera_is_refused_by_name(
    backend: Backend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rasterization, "_check_camera", lambda settings: None)  # which reads CPU tensors only
    gaussians, camera = full_call("shs")
    broken = getattr(camera, name).clone()
    broken.view(-1)[1] = float("inf")
    with pytest.raises(ValueError, match=f"NaN or Inf in: .*{name}"):
        backend.run(gaussians, camera._replace(**{name: broken}))


def test_float64_is_refused_on_a_gpu(on_shim: OnShim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_shim.shim.module, "HAS_DOUBLE", False)  # as in every build but the tests'
    with pytest.raises(ValueError, match=r"means3D is .*float64"):
        on_shim.run(*scene())


def test_without_the_cuda_part_the_error_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cuda_problem", lambda device: "built without CUDA")
    with pytest.raises(ValueError, match="built without CUDA"):
        cuda.frame_on(torch.device("cuda", 0))


@pytest.mark.gpu
@needs_gpu
def test_tensors_on_two_devices_are_refused_by_name() -> None:
    gaussians, camera = scene()
    moved: dict[str, Any] = {name: value.to("cuda", torch.float32) for name, value in gaussians.items()}
    moved["scales"] = moved["scales"].cpu()
    with pytest.raises(ValueError, match="scales is on cpu; expected cuda:0"):
        core(moved, single_camera(camera, "cuda"))
