"""Exported files: Gaussians in a format, their ids and names beside them, and what the format lost."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gradiseg.editing.object_files import ids_beside, names_beside, write_ids, write_names
from gradiseg.labelled import LabelledModel
from scene.formats.files import read_gaussians, write_gaussians
from scene.formats.losses import Losses, losses
from utils.errors import UserError
from utils.files import atomic_write
from utils.log import logger


class Exported(NamedTuple):
    """A file that was written."""

    path: Path
    gaussians: int
    losses: Losses


def export(path: Path, model: LabelledModel, format: str, up: Sequence[float]) -> Exported:
    """Write a model to a file of a format of `FORMATS`; beside it the ids of its rows and their names.

    `up` (3,) is the direction upwards in the scene. What is lost is measured on the file.
    Raises:
        UserError: Gaussians that the format cannot hold, such as those whose size is no float32.
    """
    with atomic_write(path) as temporary:
        write_gaussians(temporary, model.params, format, up, model.origin)
        with _silence():  # what the reader would warn of, the losses say
            back = read_gaussians(temporary, model.origin)
        if len(back["xyz"]) != model.count:
            raise UserError(
                f"{path}: {model.count - len(back['xyz']):,} Gaussians are too large for {format}. Remove "
                "them (edit.py), or choose --format ply."
            )
    write_ids(ids_beside(path), model.ids)
    write_names(names_beside(path), model.names_in_use)
    return Exported(path, model.count, losses(model.params, back))


def objects_of(model: LabelledModel) -> Iterator[tuple[str, LabelledModel]]:
    """Every object alone with a name for its file, `4_red_mug`; Gaussians of no object (id 0) left out."""
    for id in model.counts():
        if id:
            yield file_name(id, model.names.get(id, "")), model.rows(model.ids == id)


def file_name(id: int, name: str) -> str:
    """A file's name for an id and what it is called, in letters, digits and underscores."""
    return "_".join([str(id), *re.findall(r"\w+", name)])


def upwards(ups: Tensor) -> list[float]:
    """The mean (3,) of the directions (V, 3) that are up in views; +y where they cancel out."""
    mean = ups.double().mean(0) if len(ups) else torch.zeros(3)
    return mean.tolist() if mean.norm() > 0.1 else [0.0, 1.0, 0.0]


@contextmanager
def _silence() -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
