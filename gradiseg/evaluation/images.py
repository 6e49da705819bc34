"""Reconstruction metrics of a run's saved pictures: PSNR, SSIM and, where it has weights, LPIPS.

As in 3DGS the metrics read the 8-bit PNGs that `render.py` wrote: `<split>/ours_N/renders` against
`<split>/ours_N/gt`, pictures (3, H, W) in [0, 1], mean over the views.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fused_losses import ssim
from torch import Tensor

from scene.run_folder import RunFolder
from utils.errors import UserError
from utils.image import psnr, read_image

PairMetric = Callable[[Tensor, Tensor], float]


def image_metrics(lpips: PairMetric | None) -> dict[str, PairMetric]:
    """The metrics by their key in the results."""
    metrics: dict[str, PairMetric] = {
        "psnr": lambda image, target: float(psnr(image, target)),
        "ssim": lambda image, target: float(ssim(image, target)),
    }
    return metrics if lpips is None else metrics | {"lpips": lpips}


def score_folder(
    folder: Path, metrics: dict[str, PairMetric], device: torch.device | str = "cpu"
) -> dict[str, dict[str, float]]:
    """Scores `folder/renders/*.png` against the same names in `folder/gt`: `{file name: {metric: value}}`.

    Raises:
        UserError: no renders, or a render without its photograph.
    """
    renders = sorted((folder / "renders").glob("*.png"))
    if not renders:
        raise UserError(f"{folder / 'renders'}: holds no renders. Run render.py on this model first.")
    scores = {}
    for path in renders:
        truth = folder / "gt" / path.name
        if not truth.is_file():
            raise UserError(f"{truth}: missing beside its render. Run render.py on this model again.")
        image, target = read_image(path).to(device), read_image(truth).to(device)
        scores[path.name] = {name: metric(image, target) for name, metric in metrics.items()}
    return scores


def evaluation_folder(run: RunFolder, iteration: int = -1) -> tuple[str, int, Path]:
    """The renders to score: split, iteration and folder; the latest iteration for -1.

    Test views are what counts; a run without any is scored on its training views.

    Raises:
        UserError: nothing has been rendered.
    """
    for split in ("test", "train"):
        found = run.rendered(split)
        wanted = max(found, default=-1) if iteration < 0 else iteration
        if wanted in found:
            return split, wanted, found[wanted]
    which = "any iteration" if iteration < 0 else f"iteration {iteration}"
    raise UserError(f"{run.path}: holds no renders of {which}. Run render.py -m {run.path} first.")


def score_run(
    run: RunFolder,
    metrics: dict[str, PairMetric],
    iteration: int = -1,
    per_view: bool = False,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Scores a run: the mean of every metric, of which split and iteration, and per view on request."""
    split, iteration, folder = evaluation_folder(run, iteration)
    scores = score_folder(folder, metrics, device)
    means = {name: float(np.mean([row[name] for row in scores.values()])) for name in metrics}
    record: dict[str, Any] = means | {"split": split, "iteration": iteration, "views": len(scores)}
    return record | ({"per_view": scores} if per_view else {})
