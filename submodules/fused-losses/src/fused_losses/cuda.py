"""The losses and Adam on a GPU, float32; `losses` and `adam` check the arguments.

Nothing here waits for the device: results stay there, and the upstream gradient is read there. Everything
runs on the current stream of the tensors' device, and torch allocates all memory. The same input gives the
same bits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fused_losses import reference
from fused_losses.availability import cuda_problem
from fused_losses.tensors import CrossEntropyTensors, pointer

try:
    from fused_losses import _cuda
except ImportError:  # built without CUDA: `cuda_problem` says why
    _cuda = None  # type: ignore[assignment]

LABEL_TYPES = {torch.uint8: 0, torch.int16: 1, torch.int32: 2, torch.int64: 3}  # LabelType in kernels.h


def check_device(device: torch.device) -> None:
    """Raises: ValueError where the kernels cannot run on this GPU; the message says why."""
    if (problem := cuda_problem(device)) is not None:
        raise ValueError(problem)


def l1_ssim(image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
    """As `losses.l1_ssim`."""
    return _L1Ssim.apply(image, target, lambda_dssim)


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """As `losses.ssim`."""
    result, _ = _run_l1_ssim(image.contiguous(), target.contiguous(), 1.0, False)
    return result[1]


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    ignore_label: int | None,
    pixel_weights: Tensor | None,
    scale: float | Tensor,
) -> Tensor:
    """As `losses.linear_cross_entropy`, which checks the labels.

    The kernel takes up to 16 channels and 256 classes; beyond them the definition in PyTorch runs.
    """
    if weight.shape[1] > _cuda.MAX_CHANNELS or weight.shape[0] > _cuda.MAX_CLASSES:
        loss = reference.linear_cross_entropy(features, weight, bias, labels, ignore_label, pixel_weights)
        return scale * loss
    return _LinearCrossEntropy.apply(features, weight, bias, labels, ignore_label, pixel_weights, scale)


def adam(pointers: list[int], sizes: list[int], settings: list[float], device: torch.device) -> None:
    """One step; the lists are those of `adam._Batch`."""
    with _use(device):
        _cuda.adam(pointers, sizes, settings, _stream(device))


class _L1Ssim(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
        image, target = image.contiguous(), target.contiguous()
        result, scratch = _run_l1_ssim(image, target, lambda_dssim, ctx.needs_input_grad[0])
        ctx.save_for_backward(image, target, scratch)
        ctx.lambda_dssim = lambda_dssim
        return result[0].clone()  # not a view: autograd would track both numbers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        image, target, scratch = ctx.saved_tensors
        dL_dimage = torch.empty_like(image)
        with _use(image.device):
            _cuda.l1_ssim_backward(
                *_image_arguments(image, target, ctx.lambda_dssim),
                scratch.data_ptr(),
                upstream.contiguous().data_ptr(),
                dL_dimage.data_ptr(),
                _stream(image.device),
            )
        return dL_dimage, None, None


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
        scale: float | Tensor,
    ) -> Tensor:
        t = CrossEntropyTensors.of(features, weight, bias, labels, pixel_weights, ctx.needs_input_grad)
        loss = features.new_zeros(())
        ctx.save_for_backward(*t.gradients)
        (classes, channels), pixels = weight.shape, labels.numel()
        if pixels == 0:
            return loss
        scratch_bytes = _cuda.cross_entropy_bytes(classes, pixels)
        scratch = torch.empty(scratch_bytes, dtype=torch.uint8, device=features.device)
        with _use(features.device):
            _cuda.cross_entropy(
                t.features.data_ptr(),
                t.weight.data_ptr(),
                t.bias.data_ptr(),
                t.labels.data_ptr(),
                LABEL_TYPES[labels.dtype],
                pointer(t.pixel_weights),
                channels,
                classes,
                pixels,
                ignore_label is not None,
                ignore_label or 0,
                1.0 if isinstance(scale, Tensor) else float(scale),
                pointer(scale if isinstance(scale, Tensor) else None),
                loss.data_ptr(),
                pointer(t.dL_dfeatures),
                pointer(t.dL_dweight),
                pointer(t.dL_dbias),
                scratch.data_ptr(),
                _stream(features.device),
            )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if gradient is None else gradient * upstream for gradient in ctx.saved_tensors)
        return *gradients, None, None, None, None


def _run_l1_ssim(
    image: Tensor, target: Tensor, lambda_dssim: float, derivatives: bool
) -> tuple[Tensor, Tensor]:
    """-> loss and mean SSIM (2,), and what the backward pass needs."""
    channels, height, width = image.shape
    derivatives = derivatives and lambda_dssim != 0
    floats = _cuda.l1_ssim_floats(channels, height, width, derivatives)
    result, scratch = image.new_empty(2), image.new_empty(floats)
    with _use(image.device):
        _cuda.l1_ssim(
            *_image_arguments(image, target, lambda_dssim),
            scratch.data_ptr(),
            derivatives,
            result.data_ptr(),
            _stream(image.device),
        )
    return result, scratch


def _image_arguments(
    image: Tensor, target: Tensor, lambda_dssim: float
) -> tuple[int, int, bool, int, int, int, float]:
    channels, height, width = image.shape
    is_bytes = target.dtype == torch.uint8
    return image.data_ptr(), target.data_ptr(), is_bytes, channels, height, width, lambda_dssim


def _use(device: torch.device) -> AbstractContextManager[Any]:
    """Launches inside go to `device`."""
    return torch.cuda.device(device)


def _stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream
