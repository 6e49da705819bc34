"""Fused losses and optimizer of Gaussian splatting training, on CPU cores and CUDA GPUs.

- `l1_ssim`, `ssim`: the colour loss of 3DGS (Kerbl et al. 2023, eq. 7) and its SSIM (Wang et al. 2004).
- `linear_cross_entropy`: 1x1 convolution + softmax cross-entropy without the C x H x W logits.
- `TileCrossEntropy`: the same for a rasterizer's tiles, without the D x H x W features.
- `Adam`: torch.optim.Adam in one pass over all parameters.

Images are (C, H, W), feature maps (D, H, W), label maps (H, W). The gradient is computed together with the
loss and only scaled in the backward pass. Results are the same bits for any number of threads
(torch.get_num_threads()). `fused_losses.reference` defines all of them in plain PyTorch.
"""

from __future__ import annotations

import os

from fused_losses import _C, reference
from fused_losses.adam import Adam
from fused_losses.losses import l1_ssim, linear_cross_entropy, ssim
from fused_losses.tiles import TileCrossEntropy

__all__ = ["Adam", "TileCrossEntropy", "l1_ssim", "linear_cross_entropy", "reference", "ssim"]

if _requested_isa := os.environ.get("FUSED_LOSSES_ISA"):
    _C.select_isa(_requested_isa)
