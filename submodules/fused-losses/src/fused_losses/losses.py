"""The losses as autograd functions: checks, memory and the upstream gradient; the mathematics is in csrc.

The kernels take raw pointers: everything they read or write is allocated here and outlives the call. Tensors
on a GPU, float32 there, go the same way through `cuda`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

from fused_losses import _C, cuda
from fused_losses.tensors import CrossEntropyTensors, pointer

# Labels on a GPU that were found good, and what they were checked against: a look at them is a wait.
_good_labels = WeakIdKeyDictionary()


def l1_ssim(image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
    """(1 - lambda) L1 + lambda (1 - SSIM) of two (C, H, W) images, float32 or float64, values in [0, 1].

    `target` may also be uint8, 255 standing for 1: the same bits as `target.to(image.dtype) / 255`.
    SSIM as in 3DGS: 11 x 11 Gaussian window (sigma 1.5), zero padding, mean over all elements. Returns a
    scalar, differentiable by `image`. Lambda 0 is pure L1 and costs no SSIM.

    Raises:
        ValueError: wrong dtype, device or shape, or a target that requires a gradient.
    """
    _check_images(image, target)
    if image.is_cuda:
        return cuda.l1_ssim(image, target, float(lambda_dssim))
    return _L1Ssim.apply(image, target, float(lambda_dssim))


@torch.no_grad()
def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM of two (C, H, W) images, a scalar without gradient (that has `1 - l1_ssim(x, y, 1.0)`)."""
    _check_images(image, target)
    if image.is_cuda:
        return cuda.ssim(image, target)
    _, mean_ssim = _run_l1_ssim(image.contiguous(), target.contiguous(), 1.0, None)
    return image.new_tensor(mean_ssim)


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    ignore_label: int | None = None,
    pixel_weights: Tensor | None = None,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """Mean softmax cross-entropy of the 1x1 convolution `weight @ features + bias`, differentiable by all.

    features (D, H, W), weight (C, D), bias (C,), pixel_weights (H, W) or None: float32 or float64, all alike.
    labels (H, W): uint8, int16, int32 or int64 in [0, C), or `ignore_label`, whose pixels take no part.
    With pixel_weights the mean is sum(w * ce) / sum(w). If no pixel takes part, loss and gradients are 0.
    The result is the mean times `scale`, a number or a scalar tensor that gets no gradient: a weight given
    here costs nothing, one applied afterwards makes the backward pass read and write the gradient of the
    features once more. The tensor is like the features; on a GPU it is read there, without a wait.

    Raises:
        ValueError: wrong dtype, device or shape, or a label that is neither a class nor `ignore_label`.
    """
    check_cross_entropy(features, weight, bias, labels, pixel_weights)
    if isinstance(scale, Tensor):
        _check_like("scale", scale, features, ())
        _check_constant("scale", scale)
    if features.is_cuda:
        _check_label_values(labels, weight.shape[0], ignore_label)
        return cuda.linear_cross_entropy(features, weight, bias, labels, ignore_label, pixel_weights, scale)
    return _LinearCrossEntropy.apply(
        features, weight, bias, labels, ignore_label, pixel_weights, float(scale)
    )


class _L1Ssim(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
        image, target = image.contiguous(), target.contiguous()
        dL_dimage = torch.empty_like(image) if ctx.needs_input_grad[0] else None
        l1, mean_ssim = _run_l1_ssim(image, target, lambda_dssim, dL_dimage)
        ctx.save_for_backward(dL_dimage)
        loss = l1 if lambda_dssim == 0 else (1 - lambda_dssim) * l1 + lambda_dssim * (1 - mean_ssim)
        return image.new_tensor(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None]:
        return _scaled(ctx.saved_tensors[0], upstream), None, None


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        ignore_label: int | None,
        pixel_weights: Tensor | None,
        scale: float,
    ) -> Tensor:
        t = CrossEntropyTensors.of(features, weight, bias, labels, pixel_weights, ctx.needs_input_grad)
        (classes, channels), pixels, threads = weight.shape, labels.numel(), torch.get_num_threads()
        scratch_bytes = _C.cross_entropy_scratch(channels, classes, pixels, threads, features.element_size())
        scratch = torch.empty(scratch_bytes, dtype=torch.uint8, device=features.device)
        loss, bad_labels = _C.cross_entropy(
            features.dtype == torch.float64,
            t.features.data_ptr(),
            t.weight.data_ptr(),
            t.bias.data_ptr(),
            t.labels.data_ptr(),
            cuda.LABEL_TYPES[labels.dtype],
            pointer(t.pixel_weights),
            pointer(t.dL_dfeatures),
            pointer(t.dL_dweight),
            pointer(t.dL_dbias),
            scratch.data_ptr(),
            scale,
            channels,
            classes,
            pixels,
            ignore_label is not None,
            ignore_label or 0,
            threads,
        )
        if bad_labels:
            raise ValueError(describe_bad_label(labels, classes, ignore_label, bad_labels))
        ctx.save_for_backward(*t.gradients)
        return features.new_tensor(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *(_scaled(gradient, upstream) for gradient in ctx.saved_tensors), None, None, None, None


def _run_l1_ssim(
    image: Tensor, target: Tensor, lambda_dssim: float, dL_dimage: Tensor | None
) -> tuple[float, float]:
    """Mean L1 and mean SSIM of contiguous images; fills dL_dimage."""
    channels, height, width = image.shape
    scratch_bytes = _C.l1_ssim_scratch(channels, height, width)
    scratch = torch.empty(scratch_bytes, dtype=torch.uint8, device=image.device)
    return _C.l1_ssim(
        image.dtype == torch.float64,
        image.data_ptr(),
        target.data_ptr(),
        target.dtype == torch.uint8,
        pointer(dL_dimage),
        scratch.data_ptr(),
        channels,
        height,
        width,
        lambda_dssim,
        torch.get_num_threads(),
    )


def _scaled(gradient: Tensor | None, upstream: Tensor) -> Tensor | None:
    """The stored gradient times the upstream scalar; where that is 1, the memory is not touched again."""
    return gradient if gradient is None or upstream.item() == 1 else gradient * upstream


# ---- checks --------------------------------------------------------------------------------------


def check_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, pixel_weights: Tensor | None
) -> None:
    """The shapes, dtypes and devices of `linear_cross_entropy`."""
    _check_float("features", features, 3)
    _check_float("weight", weight, 2)
    _check_like("weight", weight, features, (weight.shape[0], features.shape[0]))
    if weight.shape[0] == 0:
        raise ValueError("weight: must have at least one row (class).")
    _check_like("bias", bias, features, (weight.shape[0],))
    _check_labels(labels, features)
    if pixel_weights is not None:
        _check_like("pixel_weights", pixel_weights, features, tuple(labels.shape))
        _check_constant("pixel_weights", pixel_weights)


def _check_float(name: str, tensor: Tensor, dimensions: int) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: must be float32 or float64, not {tensor.dtype}.")
    if tensor.is_cuda:
        cuda.check_device(tensor.device)
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name}: must be float32 on a GPU, not {tensor.dtype}.")
    elif tensor.device.type != "cpu":
        raise ValueError(f"{name}: must be on the CPU or a CUDA GPU, not on {tensor.device}.")
    if tensor.dim() != dimensions:
        raise ValueError(f"{name}: must have {dimensions} dimensions, not shape {tuple(tensor.shape)}.")


def _check_like(name: str, tensor: Tensor, like: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.dtype != like.dtype or tensor.device != like.device:
        raise ValueError(
            f"{name}: must be {like.dtype} on {like.device}, not {tensor.dtype} on {tensor.device}."
        )
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: must have shape {shape}, not {tuple(tensor.shape)}.")


def _check_constant(name: str, tensor: Tensor) -> None:
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name}: must not require a gradient, none is computed; detach it.")


def _check_images(image: Tensor, target: Tensor) -> None:
    _check_float("image", image, 3)
    if image.numel() == 0:
        raise ValueError(f"image: must not be empty, but has shape {tuple(image.shape)}.")
    bytes_like_image = torch.empty(0, dtype=torch.uint8, device=image.device)
    like = bytes_like_image if target.dtype == torch.uint8 else image
    _check_like("target", target, like, tuple(image.shape))
    _check_constant("target", target)


def _check_labels(labels: Tensor, features: Tensor) -> None:
    if labels.dtype not in cuda.LABEL_TYPES:
        raise ValueError(f"labels: must be uint8, int16, int32 or int64, not {labels.dtype}.")
    if labels.device != features.device:
        raise ValueError(f"labels: must be on {features.device}, not on {labels.device}.")
    if labels.shape != features.shape[1:]:
        raise ValueError(f"labels: must have shape {tuple(features.shape[1:])}, not {tuple(labels.shape)}.")


def _check_label_values(labels: Tensor, classes: int, ignore_label: int | None) -> None:
    """What the kernels of the CPU count on the way; once for a tensor, until it is written to."""
    checked = (labels._version, classes, ignore_label)
    if _good_labels.get(labels) == checked:
        return
    if count := int(_bad_labels(labels, classes, ignore_label).sum()):
        raise ValueError(describe_bad_label(labels, classes, ignore_label, count))
    _good_labels[labels] = checked


def _bad_labels(labels: Tensor, classes: int, ignore_label: int | None) -> Tensor:
    bad = (labels < 0) | (labels.long() >= classes)  # (H, W)
    return bad if ignore_label is None else bad & (labels.long() != ignore_label)


def describe_bad_label(labels: Tensor, classes: int, ignore_label: int | None, count: int) -> str:
    """The message of the error."""
    bad = _bad_labels(labels, classes, ignore_label)
    y, x = bad.nonzero()[0].tolist()
    ignored = "" if ignore_label is None else f" and not the ignored {ignore_label}"
    return (
        f"labels: {count} pixel(s) outside [0, {classes}){ignored}, "
        f"the first is {labels[y, x].item()} at row {y}, column {x}."
    )
