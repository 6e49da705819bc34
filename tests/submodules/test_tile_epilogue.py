"""The cross-entropy inside the rasterizer's tiles is that of the rendered map, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, _core
from diff_gaussian_rasterization import reference as blending
from fused_losses import _C, TileCrossEntropy, linear_cross_entropy
from fused_losses import reference as losses
from torch import Tensor

from tests.submodules.rasterizer_scenes import random_camera, random_gaussians

WIDTH, HEIGHT = 70, 37  # 15 tiles, some cut by the edges: 4 groups
IGNORED = -1
FACTOR = 3.0  # of the cross-entropy in the whole loss
F64, F32 = 1e-9, 3e-5  # of the largest entry
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    isa = _C.isa()
    yield
    _C.select_isa(isa)


@dataclass
class Problem:
    """A scene, a classifier and a view's labels (H, W)."""

    camera: GaussianRasterizationSettings
    gaussians: dict[str, Tensor]
    weight: Tensor
    bias: Tensor
    labels: Tensor
    pixel_weights: Tensor | None = None

    def leaves(self) -> list[Tensor]:
        return [*self.gaussians.values(), self.weight, self.bias]

    def differentiate(self, drawn: Callable[[], tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Colour, cross-entropy, then the gradients of a loss of both."""
        color, entropy = drawn()
        loss = color.square().mean() + FACTOR * entropy
        return [color.detach(), entropy.detach(), *torch.autograd.grad(loss, self.leaves())]

    def epilogue(self) -> TileCrossEntropy:
        return TileCrossEntropy(self.weight, self.bias, self.labels, IGNORED, self.pixel_weights)

    def by_tiles(self) -> list[Tensor]:
        def drawn() -> tuple[Tensor, Tensor]:
            epilogue = self.epilogue()
            color, _, handed_on = GaussianRasterizer(self.camera)(**self.gaussians, epilogue=epilogue)
            return color, epilogue.loss(handed_on)

        return self.differentiate(drawn)

    def by_map(self) -> list[Tensor]:
        def drawn() -> tuple[Tensor, Tensor]:
            color, _, objects = GaussianRasterizer(self.camera)(**self.gaussians)
            given = (self.weight, self.bias, self.labels, IGNORED, self.pixel_weights)
            return color, linear_cross_entropy(objects, *given)

        return self.differentiate(drawn)

    def by_reference(self) -> list[Tensor]:
        def drawn() -> tuple[Tensor, Tensor]:
            color, _, objects, *_ = blending.rasterize(settings=self.camera, **self.gaussians)
            given = (self.weight, self.bias, self.labels, IGNORED, self.pixel_weights)
            return color, losses.linear_cross_entropy(objects, *given)

        return self.differentiate(drawn)


def problem(dtype: torch.dtype, classes: int = 5, channels: int = 16, weighted: bool = False) -> Problem:
    """Random, a fifth of the pixels ignored."""
    torch.manual_seed(0)
    gaussians = random_gaussians(80, dtype, channels=channels)
    labels = torch.randint(0, classes, (HEIGHT, WIDTH), dtype=torch.int16)
    labels[torch.rand(HEIGHT, WIDTH) < 0.2] = IGNORED
    return Problem(
        random_camera(WIDTH, HEIGHT, dtype),
        {name: tensor.requires_grad_() for name, tensor in gaussians.items()},
        (0.3 * torch.randn(classes, channels, dtype=dtype)).requires_grad_(),
        torch.randn(classes, dtype=dtype).requires_grad_(),
        labels,
        torch.rand(HEIGHT, WIDTH, dtype=dtype) if weighted else None,
    )


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Relative to the largest entry of each."""
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape and e.abs().max() > 0
        assert (a - e).abs().max() <= tolerance * e.abs().max()


@pytest.mark.parametrize("isa", _core.instruction_sets())
@pytest.mark.parametrize(
    ("classes", "channels", "weighted"), [(2, 16, True), (5, 16, False), (9, 7, True), (300, 16, False)]
)
def test_it_is_the_reference(
    monkeypatch: pytest.MonkeyPatch, isa: str, classes: int, channels: int, weighted: bool
) -> None:
    monkeypatch.setenv("GS_RASTERIZER_ISA", isa)
    _C.select_isa(isa)
    given = problem(torch.float64, classes, channels, weighted)
    assert_close(given.by_tiles(), given.by_reference(), F64)


@pytest.mark.parametrize("isa", _core.instruction_sets())
@pytest.mark.parametrize("classes", [3, 40])
def test_float32_is_the_map(monkeypatch: pytest.MonkeyPatch, isa: str, classes: int) -> None:
    monkeypatch.setenv("GS_RASTERIZER_ISA", isa)
    _C.select_isa(isa)
    given = problem(torch.float32, classes, weighted=True)
    assert_close(given.by_tiles(), given.by_map(), F32)


def test_geometry_may_stay_out_of_it() -> None:
    given = problem(torch.float64)
    moved = given.by_tiles()
    given.camera = given.camera._replace(identity_geometry_grad=False)
    assert_close(given.by_tiles(), given.by_reference(), F64)
    assert not torch.equal(moved[2], given.by_tiles()[2])  # by means


def test_any_number_of_threads_gives_the_same_bits() -> None:
    given = problem(torch.float32, 20)
    one = given.by_tiles()
    torch.set_num_threads(2)
    assert all(torch.equal(a, b) for a, b in zip(one, given.by_tiles(), strict=True))


def test_a_view_whose_pixels_are_all_ignored_adds_nothing() -> None:
    given = problem(torch.float32)
    given.labels.fill_(IGNORED)
    _, entropy, *gradients = given.by_tiles()
    names = [*given.gaussians, "weight", "bias"]
    assert entropy == 0
    zero = [name for name, gradient in zip(names, gradients, strict=True) if not gradient.any()]
    assert zero == ["sh_objs", "weight", "bias"]


def test_without_its_loss_nothing_reaches_the_encodings() -> None:
    given = problem(torch.float32)
    color, *_ = GaussianRasterizer(given.camera)(**given.gaussians, epilogue=given.epilogue())
    assert not torch.autograd.grad(color.sum(), given.gaussians["sh_objs"])[0].any()


def test_an_epilogue_may_serve_again() -> None:
    given = problem(torch.float64)
    epilogue, once = given.epilogue(), given.by_tiles()[1]
    for _ in range(2):
        _, _, handed_on = GaussianRasterizer(given.camera)(**given.gaussians, epilogue=epilogue)
        assert epilogue.loss(handed_on) == once


@pytest.mark.parametrize("other", ["channels", "width", "dtype", "threads"])
def test_an_epilogue_for_something_else_is_refused(other: str) -> None:
    given = problem(torch.float32)
    made_for = problem(
        torch.float64 if other == "dtype" else torch.float32, channels=3 if other == "channels" else 16
    )
    if other == "width":
        made_for.labels = made_for.labels[:, 1:]
    epilogue = made_for.epilogue()
    if other == "threads":
        torch.set_num_threads(2)
    with pytest.raises(ValueError, match="epilogue: made for"):
        GaussianRasterizer(given.camera)(**given.gaussians, epilogue=epilogue)


def test_an_epilogue_needs_encodings() -> None:
    given = problem(torch.float32)
    del given.gaussians["sh_objs"]
    with pytest.raises(ValueError, match="epilogue: needs sh_objs"):
        GaussianRasterizer(given.camera)(**given.gaussians, epilogue=given.epilogue())


def test_wrong_tensors_are_named() -> None:
    given = problem(torch.float32)
    with pytest.raises(ValueError, match=r"labels: \d+ pixel"):
        TileCrossEntropy(given.weight, given.bias, given.labels)  # -1 is no class
    with pytest.raises(ValueError, match="bias: must have shape"):
        TileCrossEntropy(given.weight, given.bias[1:], given.labels, IGNORED)
    with pytest.raises(ValueError, match="2 dimensions"):
        TileCrossEntropy(given.weight, given.bias, given.labels[0], IGNORED)
