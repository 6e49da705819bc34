"""The definitions in plain PyTorch: any dtype and device, differentiable by autograd, slow.

Shapes as in the fused functions of the same names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

C1, C2 = 0.01**2, 0.03**2  # stabilisers of Wang et al. 2004 for images in [0, 1]


def window(like: Tensor) -> Tensor:
    """The normalised 11 x 11 Gaussian window, sigma 1.5."""
    offset = torch.arange(-5, 6, dtype=like.dtype, device=like.device)
    gaussian = torch.exp(-(offset**2) / (2 * 1.5**2))
    gaussian = gaussian / gaussian.sum()
    return torch.outer(gaussian, gaussian)  # (11, 11)


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM of two (C, H, W) images, zero padding."""
    channels = image.shape[0]
    kernel = window(image).expand(channels, 1, 11, 11)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x[None], kernel, padding=5, groups=channels)[0]  # (C, H, W)

    mean_x, mean_y = blur(image), blur(target)
    variance_x = blur(image * image) - mean_x**2
    variance_y = blur(target * target) - mean_y**2
    covariance = blur(image * target) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return (numerator / ((mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2))).mean()


def l1_ssim(image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
    """(1 - lambda) L1 + lambda (1 - SSIM)."""
    l1 = (image - target).abs().mean()
    return l1 if lambda_dssim == 0 else (1 - lambda_dssim) * l1 + lambda_dssim * (1 - ssim(image, target))


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    ignore_label: int | None = None,
    pixel_weights: Tensor | None = None,
) -> Tensor:
    """(Weighted) mean softmax cross-entropy of weight @ features + bias over the pixels that take part."""
    weights = torch.ones_like(features[0]) if pixel_weights is None else pixel_weights  # (H, W)
    kept = weights != 0
    if ignore_label is not None:
        kept = kept & (labels != ignore_label)
    logits = features[:, kept].T @ weight.T + bias  # (P, C)
    if not kept.any():
        return logits.sum() + 0 * bias.sum()  # 0, with gradients 0
    terms = F.cross_entropy(logits, labels[kept].long(), reduction="none")
    return (weights[kept] * terms).sum() / weights[kept].sum()


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    visible: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """New (parameter, exp_avg, exp_avg_sq) after step number `step` (from 1); invisible rows stay."""
    first = betas[0] * exp_avg + (1 - betas[0]) * gradient
    second = betas[1] * exp_avg_sq + (1 - betas[1]) * gradient**2
    unbiased_first = first / (1 - betas[0] ** step)
    unbiased_second = second / (1 - betas[1] ** step)
    new = (parameter - lr * unbiased_first / (unbiased_second.sqrt() + eps), first, second)
    if visible is None:
        return new
    rows = visible.reshape(-1, *[1] * (parameter.dim() - 1))
    old = (parameter, exp_avg, exp_avg_sq)
    return (
        torch.where(rows, new[0], old[0]),
        torch.where(rows, new[1], old[1]),
        torch.where(rows, new[2], old[2]),
    )
