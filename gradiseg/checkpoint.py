"""Checkpoints: the file that `Training.state_dict()` is kept in.

It contains plain tensors, numbers and strings only, so that reading one runs no code of its author
(`torch.load(weights_only=True)`).
"""

import os
from collections.abc import Mapping
from typing import Any

import torch

from utils.errors import UserError
from utils.files import atomic_write
from utils.ply_file import MAGIC

FORMAT = "gradiseg-checkpoint"
VERSION = 2
SECTIONS = ("iteration", "model", "classifier", "classifier_optimizer", "labels", "camera_order", "rng")


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `Training.state_dict()`; the file appears whole or not at all."""
    with atomic_write(path) as temporary:
        torch.save({"format": FORMAT, "version": VERSION, **state}, temporary)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check a checkpoint, for `Training.load_state_dict`; its tensors lie on the CPU.

    Raises: UserError for a file that is missing, truncated, of another kind or of another version.
    """
    try:
        with open(path, "rb") as file:
            if file.read(3) == MAGIC:
                raise UserError(
                    f"{path}: a PLY is a model, not a checkpoint. --resume takes a chkpntN.pth, which "
                    "train.py saves with --checkpoint_interval."
                )
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
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
