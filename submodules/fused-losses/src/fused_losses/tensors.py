"""The tensors of the linear classifier's cross-entropy as the kernels of both devices take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def pointer(tensor: Tensor | None) -> int:
    """What the kernels take."""
    return 0 if tensor is None else tensor.data_ptr()


class CrossEntropyTensors(NamedTuple):
    """What the kernels of both devices read, contiguous, and the gradients they fill; None: not wanted."""

    features: Tensor
    weight: Tensor
    bias: Tensor
    labels: Tensor
    pixel_weights: Tensor | None
    dL_dfeatures: Tensor | None
    dL_dweight: Tensor | None
    dL_dbias: Tensor | None

    @classmethod
    def of(
        cls,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        pixel_weights: Tensor | None,
        needed: Sequence[bool],
    ) -> CrossEntropyTensors:
        """`needed`: by features, weight and bias; the last two come from one sum, both or none."""
        features, weight, bias, labels = (t.contiguous() for t in (features, weight, bias, labels))
        linear = any(needed[1:3])
        return cls(
            features,
            weight,
            bias,
            labels,
            None if pixel_weights is None else pixel_weights.contiguous(),
            torch.empty_like(features) if needed[0] else None,
            torch.zeros_like(weight) if linear else None,
            torch.zeros_like(bias) if linear else None,
        )

    @property
    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """By features, weight and bias."""
        return self.dL_dfeatures, self.dL_dweight, self.dL_dbias
