"""Objects as files: Gaussians, and beside them what makes them objects again: classifier, ids, names.

An *extracted object* is a folder: `point_cloud.ply`, `classifier.pth`, `votes.npz` (ids), `objects.json`
(names), and `rows.npy`, where its Gaussians stood among those of its scene. Any other file of Gaussians can
have ids (`x.ids.npy`) and names (`x.objects.json`) beside it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from arguments.cfg_args import CFG_ARGS
from gradiseg.classifier import load_conv
from gradiseg.labelled import LabelledModel
from gradiseg.votes import load_votes, save_votes
from scene.formats.files import read_gaussians
from scene.ply import write_ply
from scene.run_folder import CLASSIFIER, POINT_CLOUD, VOTES, RunFolder
from utils.errors import UserError
from utils.files import atomic_folder, atomic_write
from utils.json_files import read_json, write_json
from utils.log import logger

NAMES, ROWS = "objects.json", "rows.npy"
EXTRACTED = frozenset((POINT_CLOUD, CLASSIFIER, VOTES, NAMES, ROWS))
LARGEST_ID, LARGEST_ROW = 65_535, 2**31 - 1


class Stored(NamedTuple):
    """Objects of a file or folder.

    Ids are 0 where nothing tells them; without a classifier the model has no classes. `rows` (N,) are those
    that its Gaussians had in the model from which they were extracted.
    """

    model: LabelledModel
    rows: Tensor | None


def write_object(folder: Path, model: LabelledModel) -> None:
    """Write a labelled model into a folder: PLY, classifier and votes."""
    write_ply(folder / POINT_CLOUD, model.params, model.origin)
    state = {"weight": model.weight[:, :, None, None].cpu(), "bias": model.bias.cpu()}
    with atomic_write(folder / CLASSIFIER) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
    save_votes(folder / VOTES, model.votes)


def extract(folder: Path, model: LabelledModel, chosen: Tensor, overwrite: bool) -> None:
    """Write the Gaussians `chosen` (N,) of a model as an extracted object.

    Raises:
        UserError: `folder` holds something else, or an extracted object that may not be replaced.
    """
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or held - EXTRACTED:
        raise UserError(f"extract: {folder} holds something else than an object. Choose another --to.")
    if held and not overwrite:
        raise UserError(f"extract: {folder} is there. Replace it with --overwrite, or choose another --to.")
    with atomic_folder(folder) as temporary:
        part = model.rows(chosen)
        logger.info("%s: %s Gaussians.", folder, f"{part.count:,}")
        write_object(temporary, part)
        write_names(temporary / NAMES, part.names_in_use)
        _write_integers(temporary / ROWS, chosen.nonzero()[:, 0], np.int32)


def read_object(path: Path, origin: np.ndarray) -> Stored:
    """The objects of a file (see `read_gaussians`), of an extracted object, or of a run's latest iteration.

    Raises:
        UserError: there are none, or what lies beside them is of others.
    """
    if path.is_dir():
        return _read_folder(path, origin)
    model = _unlabelled(path, origin)
    ids = read_ids_beside(path, model.count)
    names = read_names(names_beside(path))
    return Stored(replace(model, ids=model.ids if ids is None else ids, names=names), None)


def _unlabelled(path: Path, origin: np.ndarray) -> LabelledModel:
    """The Gaussians of a file without ids.

    One that lies nearer to 0 than to `origin` is of another scene: its coordinates are taken for those of
    the frame, as those of .splat and .glb are.
    """
    params = read_gaussians(path, origin)
    middle = params["xyz"].double().median(0).values.numpy()
    if np.linalg.norm(middle + origin) < np.linalg.norm(middle):
        params = read_gaussians(path)
        logger.warning("%s: is of another place than the scene; its coordinates count from %s.", path, origin)
    count, _, channels = params["obj_dc"].shape
    none, classes = torch.zeros(count, dtype=torch.int64), torch.zeros(0, channels)
    return LabelledModel(params, none, classes, classes[:, 0], {}, torch.zeros(count, 2), origin)


def _read_folder(folder: Path, origin: np.ndarray) -> Stored:
    run = RunFolder(folder)
    saved = run.saved(run.latest_saved()) if (folder / CFG_ARGS).is_file() else folder
    if not (saved / POINT_CLOUD).is_file():
        raise UserError(f"{saved}: holds no {POINT_CLOUD}. Name a file, an extracted object, or a run.")
    gaussians = _unlabelled(saved / POINT_CLOUD, origin).model()
    votes = load_votes(saved / VOTES, gaussians)
    model = LabelledModel.of(gaussians, load_conv(saved / CLASSIFIER), votes, read_names(folder / NAMES))
    rows = _read_integers(saved / ROWS, LARGEST_ROW) if (saved / ROWS).is_file() else None
    if rows is not None and len(rows) != model.count:
        raise UserError(f"{saved / ROWS}: {len(rows):,} rows, {model.count:,} Gaussians. Extract it again.")
    return Stored(model, rows)


def ids_beside(path: Path) -> Path:
    """Where the ids of the rows of an exported file lie."""
    return path.with_suffix(".ids.npy")


def names_beside(path: Path) -> Path:
    """Where the names of those ids lie."""
    return path.with_suffix(".objects.json")


def labels_differ(path: Path, model: LabelledModel) -> bool:
    """Whether ids or names beside a file, which files of other formats share, are others than a model's."""
    ids, names = ids_beside(path), names_beside(path)
    other_ids = ids.is_file() and not torch.equal(read_ids(ids), model.ids.cpu())
    return other_ids or (names.is_file() and read_names(names) != model.names_in_use)


def write_ids(path: Path, ids: Tensor) -> None:
    """Ids (N,) of Gaussians, in the order of a file's rows, as NumPy's uint16."""
    _write_integers(path, ids, np.uint16)


def read_ids(path: Path) -> Tensor:
    """Ids (N,) int64 that `write_ids` wrote, or of other integers that are ids.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    return _read_integers(path, LARGEST_ID)


def read_ids_beside(path: Path, count: int, labels: Path | None = None) -> Tensor | None:
    """The ids of the `count` rows of a file, of `labels` or of what lies beside it; None where nothing does.

    Raises:
        UserError: they are of other rows.
    """
    labels = ids_beside(path) if labels is None and ids_beside(path).is_file() else labels
    if labels is None:
        return None
    ids = read_ids(labels)
    if len(ids) != count:
        raise UserError(
            f"{labels}: {len(ids):,} ids, but {path} has {count:,} Gaussians. Its rows were changed: move "
            "the ids away. Without them import takes the id of the nearest Gaussian of the run, and insert "
            "makes one object."
        )
    return ids


def _write_integers(path: Path, values: Tensor, kind: type) -> None:
    with atomic_write(path) as temporary:
        np.save(temporary, values.cpu().numpy().astype(kind))


def _read_integers(path: Path, largest: int) -> Tensor:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a forged size allocates nothing
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: no ids in NumPy's format ({error}). Export them again.") from error
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iu":
        raise UserError(f"{path}: must be one row of whole numbers (N,). Export them again.")
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) <= largest:
        raise UserError(f"{path}: ids from {values.min()} to {values.max()}; they are 0 to {largest}.")
    return torch.from_numpy(values.astype(np.int64))


def write_names(path: Path, names: Mapping[int, str]) -> None:
    """Names of ids as JSON, `{"4": "ball"}`."""
    write_json(path, {str(id): names[id] for id in sorted(names)})


def read_names(path: Path) -> dict[int, str]:
    """Names of ids; none where there is no file.

    Raises:
        UserError: the file holds something else.
    """
    if not path.is_file():
        return {}
    names = read_json(path)
    if not isinstance(names, dict) or not all(
        key.isdecimal() and isinstance(name, str) for key, name in names.items()
    ):
        raise UserError(f'{path}: must be one object {{"id": "name"}}. Mend it, or delete it.')
    return {int(key): name for key, name in names.items()}
