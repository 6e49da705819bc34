"""fused_losses: agreement with its reference, gradients, and what must hold for any input."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

fused_losses = pytest.importorskip("fused_losses")
_C, reference = fused_losses._C, fused_losses.reference

SIZES = [(1, 1), (7, 5), (33, 17), (70, 131)]  # 131 columns and 70 rows: more than one tile of the SSIM
ISAS = _C.available_isas()
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-5}


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    threads, isa = torch.get_num_threads(), _C.isa()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the problems are tiny
    yield
    torch.set_num_threads(threads)
    _C.select_isa(isa)


def images(
    size: tuple[int, int], dtype: torch.dtype = torch.float64, channels: int = 3
) -> tuple[Tensor, Tensor]:
    return torch.rand(channels, *size, dtype=dtype).requires_grad_(), torch.rand(channels, *size, dtype=dtype)


def linear_problem(
    size: tuple[int, int], dtype: torch.dtype = torch.float64, channels: int = 16, classes: int = 12
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features = torch.randn(channels, *size, dtype=dtype).requires_grad_()
    weight = torch.randn(classes, channels, dtype=dtype).requires_grad_()
    bias = torch.randn(classes, dtype=dtype).requires_grad_()
    return features, weight, bias, torch.randint(0, classes, size, dtype=torch.uint8)


def with_gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Relative to the largest element of each tensor: gradients have elements that cancel to nothing."""
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        assert (a - e).abs().max() <= tolerance * e.abs().max() + 1e-12


# ---- L1 + SSIM -----------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lambda_dssim", [0.0, 0.2, 1.0])
def test_l1_ssim_is_its_reference(
    isa: str, dtype: torch.dtype, size: tuple[int, int], lambda_dssim: float
) -> None:
    _C.select_isa(isa)
    image, target = images(size, dtype)
    actual = with_gradients(fused_losses.l1_ssim(image, target, lambda_dssim), image)
    expected = with_gradients(reference.l1_ssim(image, target, lambda_dssim), image)
    assert_close(actual, expected, TOLERANCES[dtype])
    mean_ssim = fused_losses.ssim(image, target)
    assert_close([mean_ssim], [reference.ssim(image, target).detach()], TOLERANCES[dtype])
    assert not mean_ssim.requires_grad


@pytest.mark.parametrize("lambda_dssim", [0.0, 0.3])
def test_l1_ssim_gradcheck(lambda_dssim: float) -> None:
    image, target = images((6, 7), channels=2)
    assert torch.autograd.gradcheck(lambda x: fused_losses.l1_ssim(x, target, lambda_dssim), image)


def test_identical_images_have_ssim_1_and_no_gradient() -> None:
    image, _ = images((20, 30))
    loss, gradient = with_gradients(fused_losses.l1_ssim(image, image.detach(), 0.2), image)
    assert fused_losses.ssim(image, image.detach()).item() == pytest.approx(1, abs=1e-12)
    assert abs(loss) < 1e-12 and gradient.abs().max() < 1e-12


def test_ssim_is_symmetric_and_knows_no_orientation() -> None:
    image, target = (t.detach() for t in images((19, 24)))
    value = fused_losses.ssim(image, target)
    for a, b in ((target, image), (image.mT, target.mT), (image.flip(2), target.flip(2))):
        torch.testing.assert_close(fused_losses.ssim(a, b), value, rtol=1e-12, atol=0)


def test_pure_l1_has_the_gradient_of_the_absolute_value() -> None:
    image, target = images((3, 5))
    with torch.no_grad():
        image[0, 0, 0] = target[0, 0, 0]
    _, gradient = with_gradients(fused_losses.l1_ssim(image, target, 0.0), image)
    assert torch.equal(gradient, torch.sign(image - target) / image.numel())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_of_a_target_are_255ths(dtype: torch.dtype, isa: str) -> None:
    _C.select_isa(isa)
    image, _ = images((70, 131), dtype)
    target = torch.randint(0, 256, image.shape, dtype=torch.uint8)
    for weight in (0.0, 0.2):
        of_bytes = with_gradients(fused_losses.l1_ssim(image, target, weight), image)
        of_floats = with_gradients(fused_losses.l1_ssim(image, target.to(dtype) / 255, weight), image)
        assert all(torch.equal(a, b) for a, b in zip(of_bytes, of_floats, strict=True))


def test_upstream_gradient_scales_and_the_graph_may_be_walked_twice() -> None:
    image, target = images((9, 9))
    loss = fused_losses.l1_ssim(image, target, 0.2)
    once = torch.autograd.grad(loss, image, retain_graph=True)[0]
    thrice = torch.autograd.grad(3 * loss, image)[0]
    torch.testing.assert_close(thrice, 3 * once)


@pytest.mark.parametrize("lambda_dssim", [0.0, 0.2])
def test_nan_in_an_image_reaches_loss_and_gradient(lambda_dssim: float) -> None:
    image, target = images((12, 12), torch.float32)
    with torch.no_grad():
        image[1, 4, 4] = math.nan
    loss, gradient = with_gradients(fused_losses.l1_ssim(image, target, lambda_dssim), image)
    assert loss.isnan() and gradient[1, 4, 4].isnan() and not gradient[0].isnan().any()


@pytest.mark.parametrize(
    ("image", "target", "message"),
    [
        (torch.rand(3, 4, 4), torch.rand(3, 4, 5), "target: must have shape"),
        (torch.rand(3, 4, 4), torch.rand(3, 4, 4).double(), "target: must be torch.float32"),
        (torch.rand(4, 4), torch.rand(4, 4), "image: must have 3 dimensions"),
        (torch.ones(3, 4, 4, dtype=torch.uint8), torch.rand(3, 4, 4), "image: must be float32 or float64"),
        (torch.rand(3, 0, 4), torch.rand(3, 0, 4), "image: must not be empty"),
        (torch.rand(3, 4, 4), torch.rand(3, 4, 4).requires_grad_(), "target: must not require a gradient"),
    ],
)
def test_l1_ssim_names_the_wrong_argument(image: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fused_losses.l1_ssim(image, target, 0.2)


# ---- linear cross-entropy ------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("channels", "classes"), [(16, 12), (1, 1), (5, 40), (33, 7)])
def test_cross_entropy_is_its_reference(
    isa: str, dtype: torch.dtype, size: tuple[int, int], channels: int, classes: int
) -> None:
    _C.select_isa(isa)
    features, weight, bias, labels = linear_problem(size, dtype, channels, classes)
    weights = torch.rand(size, dtype=dtype)
    for options in ({}, {"ignore_label": 0}, {"ignore_label": 255, "pixel_weights": weights}):
        arguments = (features, weight, bias, labels)
        actual = with_gradients(fused_losses.linear_cross_entropy(*arguments, **options), *arguments[:3])
        expected = with_gradients(reference.linear_cross_entropy(*arguments, **options), *arguments[:3])
        assert_close(actual, expected, TOLERANCES[dtype])


def test_cross_entropy_gradcheck() -> None:
    features, weight, bias, labels = linear_problem((3, 4), channels=5, classes=6)
    weights = torch.rand(3, 4, dtype=torch.float64)

    def loss(*inputs: Tensor) -> Tensor:
        return fused_losses.linear_cross_entropy(*inputs, labels, ignore_label=2, pixel_weights=weights)

    assert torch.autograd.gradcheck(loss, (features, weight, bias))


def test_cross_entropy_takes_every_label_type() -> None:
    features, weight, bias, labels = linear_problem((6, 7))
    losses = [
        fused_losses.linear_cross_entropy(features, weight, bias, labels.to(dtype), ignore_label=3)
        for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)
    ]
    assert len({loss.item() for loss in losses}) == 1


def test_zero_weights_cost_log_of_the_number_of_classes() -> None:
    features, weight, bias, labels = linear_problem((8, 9), classes=37)
    loss = fused_losses.linear_cross_entropy(features, 0 * weight, 0 * bias, labels)
    assert loss.item() == pytest.approx(math.log(37), rel=1e-12)


def test_a_scale_is_a_factor_of_loss_and_gradients() -> None:
    *inputs, labels = linear_problem((33, 17))
    plain = with_gradients(fused_losses.linear_cross_entropy(*inputs, labels), *inputs)
    for scale in (0.3, torch.tensor(0.3, dtype=torch.float64)):
        scaled = with_gradients(fused_losses.linear_cross_entropy(*inputs, labels, scale=scale), *inputs)
        assert_close(scaled, [0.3 * tensor for tensor in plain], 1e-12)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (torch.ones(1, dtype=torch.float64), r"scale: must have shape \(\)"),
        (torch.tensor(1.0), "scale: must be torch.float64"),
        (torch.tensor(1.0, dtype=torch.float64, requires_grad=True), "scale: must not require a gradient"),
    ],
)
def test_a_scale_of_another_kind_is_refused(scale: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fused_losses.linear_cross_entropy(*linear_problem((3, 4)), scale=scale)


def test_renaming_the_classes_changes_nothing() -> None:
    features, weight, bias, labels = linear_problem((8, 9))
    order = torch.randperm(12)
    new_label = torch.argsort(order)
    loss = fused_losses.linear_cross_entropy(features, weight, bias, labels)
    renamed = fused_losses.linear_cross_entropy(
        features, weight[order], bias[order], new_label[labels.long()]
    )
    assert renamed.item() == pytest.approx(loss.item(), rel=1e-12)


def test_only_the_ratios_of_pixel_weights_count() -> None:
    features, weight, bias, labels = linear_problem((8, 9))
    weights = torch.rand(8, 9, dtype=torch.float64)

    def loss(w: Tensor | None) -> float:
        return fused_losses.linear_cross_entropy(features, weight, bias, labels, pixel_weights=w).item()

    assert loss(7 * weights) == pytest.approx(loss(weights), rel=1e-12)
    assert loss(torch.full_like(weights, 0.25)) == pytest.approx(loss(None), rel=1e-12)


def test_pixels_that_take_no_part_have_no_influence() -> None:
    features, weight, bias, labels = linear_problem((20, 21))
    labels[:11] = 3
    weights = torch.rand(20, 21, dtype=torch.float64)
    weights[:, 5] = 0
    out = (labels == 3) | (weights == 0)
    with torch.no_grad():
        features[:, out] = math.nan
    arguments, options = (features, weight, bias, labels), {"ignore_label": 3, "pixel_weights": weights}
    actual = with_gradients(fused_losses.linear_cross_entropy(*arguments, **options), *arguments[:3])
    expected = with_gradients(reference.linear_cross_entropy(*arguments, **options), *arguments[:3])
    assert (actual[1][:, out] == 0).all()
    assert_close(actual, expected, 1e-9)


@pytest.mark.parametrize("size", [(4, 5), (0, 5)])
def test_nothing_to_learn_from_costs_nothing(size: tuple[int, int]) -> None:
    features, weight, bias, labels = linear_problem(size, torch.float32)
    loss = fused_losses.linear_cross_entropy(features, weight, bias, torch.zeros_like(labels), ignore_label=0)
    loss, *gradients = with_gradients(loss, features, weight, bias)
    assert loss == 0 and all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("isa", ISAS)
def test_extreme_logits_stay_finite(isa: str) -> None:
    _C.select_isa(isa)
    features, weight, bias, labels = linear_problem((5, 5), torch.float32)
    with torch.no_grad():
        weight *= 1e4
        bias[4:8] = -100  # absent classes of a trained classifier
    arguments = (features, weight, bias, labels)
    actual = with_gradients(fused_losses.linear_cross_entropy(*arguments), *arguments[:3])
    expected = with_gradients(reference.linear_cross_entropy(*arguments), *arguments[:3])
    assert all(t.isfinite().all() for t in actual)
    assert_close(actual, expected, 1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_in_the_features_reaches_loss_and_gradients(value: float) -> None:
    features, weight, bias, labels = linear_problem((4, 5), torch.float32)
    with torch.no_grad():
        features[2, 1, 1] = value
    arguments = (features, weight, bias, labels)
    outputs = with_gradients(fused_losses.linear_cross_entropy(*arguments), *arguments[:3])
    assert all(t.isnan().any() for t in outputs)


@pytest.mark.parametrize(
    ("dtype", "label"), [(torch.uint8, 12), (torch.int16, -1), (torch.int32, 99), (torch.int64, 2**40)]
)
def test_a_label_that_is_no_class_is_an_error_with_its_place(dtype: torch.dtype, label: int) -> None:
    features, weight, bias, labels = linear_problem((4, 5))
    labels = labels.to(dtype)
    labels[2, 3] = label
    with pytest.raises(ValueError, match=rf"labels: 1 pixel.*is {label} at row 2, column 3"):
        fused_losses.linear_cross_entropy(features, weight, bias, labels)
    loss = fused_losses.linear_cross_entropy(features, weight, bias, labels, ignore_label=label)
    assert loss.isfinite()


def test_an_ignored_label_that_the_type_cannot_hold_ignores_nothing() -> None:
    features, weight, bias, labels = linear_problem((4, 5))
    plain = fused_losses.linear_cross_entropy(features, weight, bias, labels)
    for ignore_label in (-1, 256, 2**32):
        assert fused_losses.linear_cross_entropy(features, weight, bias, labels, ignore_label) == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.rand(12, 15)}, "weight: must have shape"),
        ({"bias": torch.rand(11)}, "bias: must have shape"),
        ({"bias": torch.rand(12).double()}, "bias: must be torch.float32"),
        ({"labels": torch.zeros(4, 6, dtype=torch.uint8)}, "labels: must have shape"),
        ({"labels": torch.zeros(4, 5)}, "labels: must be uint8"),
        ({"pixel_weights": torch.rand(5, 4)}, "pixel_weights: must have shape"),
        ({"features": torch.rand(16, 20)}, "features: must have 3 dimensions"),
    ],
)
def test_cross_entropy_names_the_wrong_argument(change: dict[str, Tensor], message: str) -> None:
    names = ("features", "weight", "bias", "labels")
    arguments = dict(zip(names, linear_problem((4, 5), torch.float32), strict=True))
    with pytest.raises(ValueError, match=message):
        fused_losses.linear_cross_entropy(**{**arguments, **change})


def test_gradients_are_computed_only_where_they_are_wanted() -> None:
    features, weight, bias, labels = linear_problem((4, 5))
    all_of_them = torch.autograd.grad(
        fused_losses.linear_cross_entropy(features, weight, bias, labels), (features, weight, bias)
    )
    frozen = fused_losses.linear_cross_entropy(features, weight.detach(), bias.detach(), labels)
    assert torch.equal(torch.autograd.grad(frozen, features)[0], all_of_them[0])
    detached = fused_losses.linear_cross_entropy(features.detach(), weight, bias, labels)
    assert torch.equal(torch.autograd.grad(detached, weight)[0], all_of_them[1])


# ---- any number of threads, any instruction set --------------------------------------------------


def everything(size: tuple[int, int]) -> list[Tensor]:
    """All outputs of all kernels on one float32 problem."""
    torch.manual_seed(1)
    image, target = images(size, torch.float32)
    features, weight, bias, labels = linear_problem(size, torch.float32)
    weights = torch.rand(size)
    outputs = with_gradients(fused_losses.l1_ssim(image, target, 0.2), image)
    loss = fused_losses.linear_cross_entropy(features, weight, bias, labels, 2, weights)
    outputs += with_gradients(loss, features, weight, bias)
    for parameter in (features, weight):
        parameter.grad = torch.randn_like(parameter)
    optimizer = fused_losses.Adam([features, weight])
    optimizer.step(visible=torch.rand(16) < 0.5)
    return [*outputs, features.detach(), weight.detach()]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [*SIZES, (60, 150)])
def test_the_number_of_threads_changes_no_bit(isa: str, size: tuple[int, int]) -> None:
    _C.select_isa(isa)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(everything(size))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_instruction_sets_agree(size: tuple[int, int]) -> None:
    results = []
    for isa in ISAS:
        _C.select_isa(isa)
        results.append(everything(size))
    for other in results[1:]:
        assert_close(other, results[0], 1e-5)


def test_the_environment_chooses_the_instruction_set() -> None:
    environment = {**os.environ, "FUSED_LOSSES_ISA": "baseline"}
    command = [sys.executable, "-m", "fused_losses"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "instruction set: baseline" in shown


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'sse9' is not available here, choose one of baseline"):
        _C.select_isa("sse9")


# ---- Adam ----------------------------------------------------------------------------------------

SHAPES = [(101, 3), (101, 15, 3), (101,), (), (20000,)]
SETTINGS: list[dict[str, Any]] = [{"lr": 0.1}, {"lr": 1e-3, "betas": (0.5, 0.99), "eps": 1e-15}]


def parameter_groups() -> list[dict[str, Any]]:
    """Two groups of parameters, the same on each call."""
    torch.manual_seed(2)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    return [{"params": parameters[:2], **SETTINGS[0]}, {"params": parameters[2:], **SETTINGS[1]}]


def run(optimizer: torch.optim.Optimizer, steps: range) -> list[Tensor]:
    """Steps with given gradients, the last parameter skips each third. Returns parameters and moments."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** (step % 5 - 3)
        if step % 3 == 0:
            parameters[-1].grad = None
        optimizer.step()
    moments = [optimizer.state[p][key] for p in parameters for key in ("step", "exp_avg", "exp_avg_sq")]
    return [*(p.detach() for p in parameters), *moments]


@pytest.mark.parametrize("isa", ISAS)
def test_adam_is_torch_adam(isa: str) -> None:
    _C.select_isa(isa)
    actual = run(fused_losses.Adam(parameter_groups()), range(1, 21))
    expected = run(torch.optim.Adam(parameter_groups()), range(1, 21))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("first", [fused_losses.Adam, torch.optim.Adam])
def test_a_state_dict_goes_on_in_the_other_adam(first: type) -> None:
    second = torch.optim.Adam if first is fused_losses.Adam else fused_losses.Adam
    started, resumed = first(parameter_groups()), second(parameter_groups())
    parameters = run(started, range(1, 6))[: len(SHAPES)]
    resumed.load_state_dict(copy.deepcopy(started.state_dict()))  # torch would share the moments
    for group, other in zip(resumed.param_groups, started.param_groups, strict=True):
        assert set(group) == set(other)
    with torch.no_grad():
        for group in resumed.param_groups:
            for parameter in group["params"]:
                parameter.copy_(parameters.pop(0))
    for a, e in zip(run(resumed, range(6, 12)), run(started, range(6, 12)), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-6)


def test_adam_leaves_invisible_rows_alone() -> None:
    visible = torch.rand(101) < 0.3
    groups = parameter_groups()
    optimizer = fused_losses.Adam(groups)
    run(optimizer, range(1, 3))
    for group in groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            old = [parameter.detach().clone(), state["exp_avg"].clone(), state["exp_avg_sq"].clone()]
            parameter.grad = torch.randn(parameter.shape)
            settings = {key: group[key] for key in ("lr", "betas", "eps")}
            mask = visible if parameter.shape[:1] == (101,) else None
            step = int(state["step"]) + 1
            expected = reference.adam_step(old[0], parameter.grad, *old[1:], step, **settings, visible=mask)
            others = [p for g in groups for p in g["params"] if p is not parameter]
            for other in others:
                other.grad = None
            optimizer.step(visible=visible)
            new = [parameter.detach(), state["exp_avg"], state["exp_avg_sq"]]
            for a, e, o in zip(new, expected, old, strict=True):
                torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-6)
                if mask is not None:
                    assert torch.equal(a[~visible], o[~visible]) and not torch.equal(a[visible], o[visible])


def test_adam_passes_nan_on() -> None:
    parameter = torch.nn.Parameter(torch.ones(40))
    parameter.grad = torch.ones(40)
    parameter.grad[7] = math.nan
    fused_losses.Adam([parameter]).step()
    assert parameter[7].isnan() and parameter.isnan().sum() == 1


def test_adam_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="params: must be float32"):
        fused_losses.Adam([torch.nn.Parameter(torch.ones(3).double())])
    with pytest.raises(ValueError, match="params: must be contiguous"):
        fused_losses.Adam([torch.nn.Parameter(torch.ones(3, 4).T)])
    optimizer = fused_losses.Adam([torch.nn.Parameter(torch.ones(3))])
    decayed = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], weight_decay=0.1)
    with pytest.raises(ValueError, match=r"weight_decay: 0\.1 is not supported"):
        optimizer.load_state_dict(decayed.state_dict())
    with pytest.raises(ValueError, match="visible: must be a bool mask"):
        optimizer.step(visible=torch.ones(3))
