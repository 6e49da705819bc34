"""fused_losses on a GPU against its definitions: in the shim always, on a device where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_losses import Adam, cuda, reference
from fused_losses.availability import cuda_problem
from torch import Tensor

from tests.cuda_shim import build

CSRC = Path(__file__).parents[2] / "submodules/fused-losses/csrc"


@pytest.fixture(params=["shim", pytest.param("device", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where to put the tensors of `cuda`'s functions; under "shim" the kernels run on the CPU, checked."""
    if request.param == "device":
        if (problem := cuda_problem()) is not None:
            pytest.skip(problem)
        yield "cuda"
        return
    names = ["bindings.cpp", "l1_ssim.cu", "cross_entropy.cu", "adam.cu"]
    shim = build.extension("_cuda", [CSRC / "cuda" / name for name in names], include=[CSRC])
    monkeypatch.setattr(cuda, "_cuda", shim.module)
    monkeypatch.setattr(cuda, "_use", lambda device: nullcontext())
    monkeypatch.setattr(cuda, "_stream", lambda device: 0)
    with shim.watch(order=3):
        yield "cpu"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def on(device: str, tensor: Tensor) -> Tensor:
    """A leaf on the device, which wants a gradient where the tensor does."""
    return tensor.detach().clone().to(device).requires_grad_(tensor.requires_grad)


def assert_close(actual: Tensor | None, expected: Tensor | None, tolerance: float) -> None:
    """Equal to `tolerance` times the largest element."""
    assert actual is not None and expected is not None
    scale = expected.abs().max().clamp_min(1e-20)
    assert float((actual.cpu() - expected).abs().max() / scale) < tolerance


# ---- L1 + SSIM -----------------------------------------------------------------------------------


def images(channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    image = torch.rand(channels, height, width, generator=generator(1))
    return image.requires_grad_(), torch.rand(channels, height, width, generator=generator(2))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 3), (1, 32, 32), (3, 33, 65), (2, 70, 31)])
@pytest.mark.parametrize("lambda_dssim", [0.0, 0.2, 1.0])
def test_l1_ssim(shape: tuple[int, int, int], lambda_dssim: float, device: str) -> None:
    image, target = images(*shape)
    expected = reference.l1_ssim(image.double(), target.double(), lambda_dssim)
    (3 * expected).backward()
    image_there = on(device, image)
    loss = cuda.l1_ssim(image_there, target.to(device), lambda_dssim)
    (3 * loss).backward()
    assert_close(loss.detach(), expected.detach(), 1e-5)
    assert_close(image_there.grad, image.grad, 2e-5)


def test_ssim_of_equal_images_is_one(device: str) -> None:
    image = images(3, 20, 40)[0].detach().to(device)
    assert_close(cuda.ssim(image, image), torch.ones(()), 1e-6)


def test_byte_target_is_the_target_over_255(device: str) -> None:
    image, _ = images(3, 35, 20)
    target = torch.randint(0, 256, image.shape, dtype=torch.uint8, generator=generator())
    results = []
    for given in (target, target / 255):
        leaf = on(device, image)
        loss = cuda.l1_ssim(leaf, given.to(device), 0.2)
        loss.backward()
        assert leaf.grad is not None
        results.append((loss.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_second_backward_gives_the_same(device: str) -> None:
    image, target = images(1, 12, 12)
    leaf = on(device, image)
    loss = cuda.l1_ssim(leaf, target.to(device), 0.2)
    first, second = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


# ---- linear + cross-entropy ----------------------------------------------------------------------


def classification(
    channels: int, classes: int, height: int, width: int, dtype: torch.dtype = torch.int64
) -> dict[str, Any]:
    return {
        "features": torch.randn(channels, height, width, generator=generator(1)).requires_grad_(),
        "weight": torch.randn(classes, channels, generator=generator(2)).requires_grad_(),
        "bias": torch.randn(classes, generator=generator(3)).requires_grad_(),
        "labels": torch.randint(0, classes, (height, width), generator=generator(4)).to(dtype),
        "ignore_label": None,
        "pixel_weights": None,
    }


def put(problem: dict[str, Any], device: str) -> dict[str, Any]:
    """The problem on the device, its tensors as new leaves."""
    return {k: on(device, v) if isinstance(v, Tensor) else v for k, v in problem.items()}


def check_cross_entropy(problem: dict[str, Any], device: str, scale: float | Tensor = 1.0) -> None:
    """Value and all gradients against the definition in float64."""
    names = ["features", "weight", "bias"]
    exact = {name: problem[name].detach().double().requires_grad_() for name in names}
    weights = problem["pixel_weights"]
    expected = float(scale) * reference.linear_cross_entropy(
        **{**problem, **exact, "pixel_weights": None if weights is None else weights.double()}
    )
    (2 * expected).backward()
    there = put(problem, device)
    loss = cuda.linear_cross_entropy(**there, scale=scale)
    (2 * loss).backward()
    assert_close(loss.detach(), expected.detach(), 1e-5)
    for name in names:
        assert_close(there[name].grad, exact[name].grad, 2e-5)


@pytest.mark.parametrize("classes", [1, 3, 32, 33, 64, 100, 129, 256])
def test_cross_entropy_of_classes(classes: int, device: str) -> None:
    check_cross_entropy(classification(16, classes, 7, 13), device)


@pytest.mark.parametrize("channels", [1, 7, 16])
@pytest.mark.parametrize("shape", [(1, 1), (4, 8), (11, 9)])
def test_cross_entropy_of_shapes(channels: int, shape: tuple[int, int], device: str) -> None:
    check_cross_entropy(classification(channels, 12, *shape), device)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_label_types_and_ignored_pixels(dtype: torch.dtype, device: str) -> None:
    problem = classification(16, 20, 9, 16, dtype)
    problem["ignore_label"] = 255 if dtype == torch.uint8 else -1
    problem["labels"][:3] = problem["ignore_label"]  # whole tiles, and parts of one
    with torch.no_grad():
        problem["features"][:, :3] = torch.nan  # takes no part, must not reach anything
    check_cross_entropy(problem, device, scale=0.25)


def test_pixel_weights(device: str) -> None:
    problem = classification(16, 40, 8, 20)
    problem["pixel_weights"] = torch.rand(8, 20, generator=generator(5))
    problem["pixel_weights"][2:4] = 0
    check_cross_entropy(problem, device)


@pytest.mark.parametrize("classes", [12, 300])  # the kernel, and the definition beyond it
def test_a_scale_that_lies_on_the_device(classes: int, device: str) -> None:
    scale = torch.tensor(0.37, device=device)
    check_cross_entropy(classification(16, classes, 7, 13), device, scale)


@pytest.mark.parametrize("height", [0, 4])
def test_no_pixel_takes_part(height: int, device: str) -> None:
    problem = classification(16, 5, height, 20)
    problem["labels"][:] = problem["ignore_label"] = 2
    there = put(problem, device)
    loss = cuda.linear_cross_entropy(**there, scale=1.0)
    loss.backward()
    assert loss.item() == 0
    for name in ("features", "weight", "bias"):
        assert torch.count_nonzero(there[name].grad) == 0


def test_large_logits_do_not_overflow(device: str) -> None:
    problem = classification(16, 70, 3, 12)
    with torch.no_grad():
        problem["bias"] -= 300
        problem["bias"][5] += 500
    check_cross_entropy(problem, device)


def test_many_tiles_per_block(device: str) -> None:
    problem = classification(16, 3, 190, 190)  # 1129 tiles, 1056 blocks: the first ones take two each
    problem["ignore_label"] = -1
    problem["labels"][10:180] = -1  # tiles without a pixel are cheap
    check_cross_entropy(problem, device)


def test_only_some_gradients(device: str) -> None:
    problem = classification(16, 6, 5, 7)
    for kept in ("features", "weight"):
        there = put(problem, device)
        for name in {"features", "weight", "bias"} - {kept}:
            there[name].requires_grad_(False)
        cuda.linear_cross_entropy(**there, scale=1.0).backward()
        assert [name for name in ("features", "weight", "bias") if there[name].grad is not None] == [kept]


def test_beyond_the_kernel_the_definition_runs(device: str) -> None:
    check_cross_entropy(classification(20, 5, 4, 6), device)
    check_cross_entropy(classification(4, 300, 2, 3), device)


# ---- Adam ----------------------------------------------------------------------------------------

SHAPES = [(), (5,), (7, 3), (1500, 3), (33, 15, 3), (0, 4), (4096,), (4097,)]


Triple = tuple[Tensor, Tensor, Tensor]  # parameter, exp_avg, exp_avg_sq


def masks(visible: Tensor | None, parameter: Tensor) -> bool:
    return visible is not None and parameter.dim() > 0 and len(parameter) == len(visible)


def run_adam(triples: list[Triple], gradients: list[Tensor], step: int, visible: Tensor | None) -> None:
    """A step in place, by the kernel."""
    pointers, sizes, settings = [], [], []
    for triple, gradient in zip(triples, gradients, strict=True):
        parameter = triple[0]
        mask = visible.data_ptr() if visible is not None and masks(visible, parameter) else 0
        tensors = (parameter, gradient, *triple[1:])
        pointers += [*(tensor.data_ptr() for tensor in tensors), mask]
        rows = len(parameter) if parameter.dim() else 1
        sizes += [rows, parameter.numel() // max(rows, 1)]
        settings += [1e-2, 0.9, 0.999, 1e-15, float(step)]
    cuda.adam(pointers, sizes, settings, gradients[0].device)


def check_adam(device: str, visible: Tensor | None, copies: int = 1) -> None:
    """Two steps of every parameter against the definition."""
    shapes = SHAPES * copies
    start = [torch.randn(shape, generator=generator(i)) for i, shape in enumerate(shapes)]
    expected: list[Triple] = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in start]
    actual: list[Triple] = [tuple(on(device, t) for t in triple) for triple in expected]  # type: ignore[misc]
    for step in (1, 2):
        gradients = [torch.randn(shape, generator=generator(10 * step + i)) for i, shape in enumerate(shapes)]
        there = [gradient.to(device) for gradient in gradients]
        run_adam(actual, there, step, None if visible is None else visible.to(device))
        for i, (parameter, first, second) in enumerate(expected):
            seen = visible if masks(visible, parameter) else None
            expected[i] = reference.adam_step(
                parameter, gradients[i], first, second, step, 1e-2, eps=1e-15, visible=seen
            )
    for mine, wanted in zip(actual, expected, strict=True):
        for a, w in zip(mine, wanted, strict=True):
            torch.testing.assert_close(a.cpu(), w, rtol=1e-5, atol=1e-6)


def test_adam(device: str) -> None:
    check_adam(device, None)


def test_adam_of_more_tensors_than_a_launch_takes(device: str) -> None:
    check_adam(device, None, copies=7)


def test_adam_of_visible_rows(device: str) -> None:
    check_adam(device, torch.rand(1500, generator=generator()) < 0.5)


# ---- dispatch ------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_dispatch_by_device() -> None:
    if (problem := cuda_problem()) is not None:
        pytest.skip(problem)
    import fused_losses

    image, target = images(3, 20, 20)
    assert fused_losses.l1_ssim(image.cuda(), target.cuda(), 0.2).is_cuda
    given = put(classification(16, 6, 5, 7), "cuda")
    assert fused_losses.linear_cross_entropy(**given).is_cuda
    given["labels"][2, 3] = 6
    with pytest.raises(ValueError, match="the first is 6 at row 2, column 3"):
        fused_losses.linear_cross_entropy(**given)
    with pytest.raises(ValueError, match="image: must be float32 on a GPU"):
        fused_losses.l1_ssim(image.double().cuda(), target.double().cuda(), 0.2)
    parameter = torch.ones(5, 3, device="cuda", requires_grad=True)
    optimizer = Adam([parameter], lr=0.1)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step(visible=torch.tensor([True, False, True, True, True], device="cuda"))
    assert parameter.detach().cpu()[:2, 0].tolist() == pytest.approx([0.9, 1.0])
