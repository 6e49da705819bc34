"""The cross-entropy as an epilogue of a rasterizer's tiles: the feature map never exists.

A rasterizer on the CPU that knows csrc/tile_epilogue.h calls it for every tile, while that is in the cache,
and keeps the gradients it leaves. Neither package imports the other: an address is all that passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fused_losses import _C, cuda
from fused_losses.losses import check_cross_entropy, describe_bad_label
from fused_losses.tensors import pointer


class TileCrossEntropy:
    """`linear_cross_entropy` of features (D, H, W) that a rasterizer holds tile by tile, on the CPU.

    weight (C, D), bias (C,), labels (H, W), ignore_label and pixel_weights as there, float32 or float64. Its
    use: give it to the rasterizer, then what that returns for it to `loss`. The same bits for any number of
    threads, which must not grow in between.

    Raises:
        ValueError: wrong dtype, device or shape, or a label that is neither a class nor `ignore_label`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        ignore_label: int | None = None,
        pixel_weights: Tensor | None = None,
    ) -> None:
        if weight.dim() != 2 or labels.dim() != 2:
            shapes = f"{tuple(weight.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"weight, labels: must have 2 dimensions each, not shapes {shapes}.")
        (classes, channels), (height, width) = weight.shape, labels.shape
        map_like = weight.new_empty(()).expand(channels, height, width)  # one number: it is not to exist
        check_cross_entropy(map_like, weight, bias, labels, pixel_weights)
        if weight.is_cuda:
            raise ValueError("weight: must be on the CPU; on a GPU linear_cross_entropy reads the map.")
        self.weight, self.bias = weight, bias
        threads = torch.get_num_threads()
        scratch_bytes = _C.tiles_scratch(channels, classes, labels.numel(), threads, weight.element_size())
        scratch = torch.empty(scratch_bytes, dtype=torch.uint8, device=weight.device)
        weight, bias, labels = weight.detach().contiguous(), bias.detach().contiguous(), labels.contiguous()
        pixel_weights = None if pixel_weights is None else pixel_weights.contiguous()
        self._alive = weight, bias, labels, pixel_weights, scratch  # the kernels know their addresses only
        self._gradients = torch.empty_like(weight), torch.empty_like(bias)
        kernels = _C.TilesDouble if weight.dtype == torch.float64 else _C.TilesFloat
        self._kernels = kernels(
            weight=weight.data_ptr(),
            bias=bias.data_ptr(),
            labels=labels.data_ptr(),
            label_type=cuda.LABEL_TYPES[labels.dtype],
            pixel_weights=pointer(pixel_weights),
            dL_dweight=self._gradients[0].data_ptr(),
            dL_dbias=self._gradients[1].data_ptr(),
            scratch=scratch.data_ptr(),
            channels=channels,
            classes=classes,
            width=width,
            height=height,
            ignores=ignore_label is not None,
            ignore_label=ignore_label or 0,
            threads=threads,
        )
        if bad_labels := self._kernels.bad_labels:
            raise ValueError(describe_bad_label(labels, classes, ignore_label, bad_labels))

    @property
    def address(self) -> int:
        """What the rasterizer takes."""
        return self._kernels.address

    def loss(self, handed_on: Tensor) -> Tensor:
        """The mean cross-entropy, differentiable by weight, bias and `handed_on`, the rasterizer's scalar."""
        return _TileLoss.apply(handed_on, self.weight, self.bias, self._kernels, self._gradients)


class _TileLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        handed_on: Tensor,
        weight: Tensor,
        bias: Tensor,
        kernels: Any,
        gradients: tuple[Tensor, Tensor],
    ) -> Tensor:
        loss = kernels.loss()
        ctx.save_for_backward(*gradients)
        return handed_on.new_tensor(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        dL_dweight, dL_dbias = ctx.saved_tensors
        return upstream, dL_dweight * upstream, dL_dbias * upstream, None, None
