"""Checkpoints: everything a run needs to go on bit for bit.

One file holds the model with its Adam moments and per-Gaussian statistics (which is all the state
densification has), the classifier and its optimizer, the repaired labels, the iteration, the order of the
cameras still to be shown, and the generators of torch, NumPy and Python. It contains plain tensors, numbers
and strings only, so that reading one runs no code of its author (`torch.load(weights_only=True)`).
"""

import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arguments import OptimizationParams
from gradiseg.classifier import IdentityClassifier
from gradiseg.repair.labels import TrainingLabels
from scene.gaussian_model import GaussianModel
from utils.errors import UserError
from utils.files import atomic_write

FORMAT = "gradiseg-checkpoint"
VERSION = 2
NAME = re.compile(r"chkpnt(\d+)\.pth")
SECTIONS = ("iteration", "model", "classifier", "classifier_optimizer", "labels", "camera_order", "rng")


def save(
    path: str | os.PathLike[str],
    iteration: int,
    model: GaussianModel,
    classifier: IdentityClassifier,
    classifier_optimizer: torch.optim.Optimizer,
    labels: TrainingLabels,
    camera_order: Sequence[int] = (),
) -> None:
    """Write the run as it stands after `iteration`; the file appears whole or not at all.

    camera_order: indices of the training cameras that the current pass has yet to show, in their order.
    """
    contents = {
        "format": FORMAT,
        "version": VERSION,
        "iteration": iteration,
        "model": model.capture(),
        "classifier": classifier.state_dict(),
        "classifier_optimizer": classifier_optimizer.state_dict(),
        "labels": labels.state_dict(),
        "camera_order": list(camera_order),
        "rng": rng_state(),
    }
    with atomic_write(path) as temporary:
        torch.save(contents, temporary)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check a checkpoint; its tensors lie on the CPU.

    Raises: UserError for a file that is missing, truncated, of another kind or of another version.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint. Name a chkpntN.pth that train.py wrote.") from error
    except Exception as error:  # torch reports a damaged or foreign file by half a dozen types
        raise UserError(
            f"{path}: not a readable checkpoint, it is truncated or a file of another kind. Use an older one."
        ) from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise UserError(f"{path}: not a GradiSeg checkpoint. Name a chkpntN.pth that train.py wrote.")
    if contents.get("version") != VERSION:
        raise UserError(
            f"{path}: checkpoint version {contents.get('version')}, this program reads {VERSION}. "
            "Go on with the program that wrote it."
        )
    missing = [name for name in SECTIONS if name not in contents]
    if missing:
        raise UserError(f"{path}: the checkpoint lacks {', '.join(missing)}. Use an older one.")
    return contents


def latest(model_path: str | os.PathLike[str]) -> Path:
    """The `chkpntN.pth` of the highest N in the folder of a run.

    Raises: UserError where there is none.
    """
    numbered = {int(m[1]): p for p in Path(model_path).glob("chkpnt*.pth") if (m := NAME.fullmatch(p.name))}
    if not numbered:
        raise UserError(
            f"{model_path}: no chkpntN.pth to resume from. "
            "Train with --checkpoint_interval, or anew with --overwrite."
        )
    return numbered[max(numbered)]


def restore(
    contents: dict[str, Any],
    model: GaussianModel,
    opt: OptimizationParams,
    classifier: IdentityClassifier,
    classifier_optimizer: torch.optim.Optimizer,
    labels: TrainingLabels,
) -> tuple[int, list[int]]:
    """Put a loaded checkpoint into the model, the classifier, its optimizer, labels and random generators.

    The classifier must have been made for the same class ids.
    Returns: the iteration that was completed and the camera order.
    Raises: UserError where the classifier has other classes than the checkpoint's.
    """
    if not torch.equal(contents["classifier"]["class_ids"], classifier.class_ids.cpu()):
        raise UserError(
            "the checkpoint's classifier knows other ids than the scene's masks. "
            "Resume with the scene, --object_path and --ignore_label of that run."
        )
    classifier.load_state_dict(contents["classifier"])
    model.restore(contents["model"], opt)
    classifier_optimizer.load_state_dict(contents["classifier_optimizer"])
    labels.load_state_dict(contents["labels"])
    restore_rng(contents["rng"])
    return contents["iteration"], contents["camera_order"]


def rng_state() -> dict[str, Any]:
    """The states of all random generators as tensors, numbers and strings."""
    numpy_state = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": numpy_state | {"state": {"key": keys, "pos": int(numpy_state["state"]["pos"])}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Set all random generators to `rng_state()`; those of GPUs only where their number is the same."""
    random.setstate(state["python"])
    keys = state["numpy"]["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(state["numpy"] | {"state": {"key": keys, "pos": state["numpy"]["state"]["pos"]}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
