"""Objects as files: Gaussians, and beside them what makes them objects again: classifier, ids, names."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradiseg.labelled import LabelledModel
from gradiseg.votes import save_votes
from scene.formats.files import read_gaussians
from scene.ply import write_ply
from scene.run_folder import CLASSIFIER, POINT_CLOUD, VOTES
from utils.errors import UserError
from utils.files import atomic_write
from utils.json_files import read_json, write_json

NAMES = "objects.json"


def write_object(folder: Path, model: LabelledModel) -> None:
    """Write a labelled model into a folder: PLY, classifier, votes and names."""
    write_ply(folder / POINT_CLOUD, model.params, model.origin)
    state = {"weight": model.weight[:, :, None, None].cpu(), "bias": model.bias.cpu()}
    with atomic_write(folder / CLASSIFIER) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
    save_votes(folder / VOTES, model.votes)
    write_names(folder / NAMES, model.names)


def read_object(path: Path, origin: np.ndarray) -> dict[str, Tensor]:
    """The Gaussians of a file, or of the folder that `write_object` filled; see `read_gaussians`."""
    return read_gaussians(path / POINT_CLOUD if path.is_dir() else path, origin)


def ids_beside(path: Path) -> Path:
    """Where the ids of the rows of an exported file lie."""
    return path.with_suffix(".ids.npy")


def names_beside(path: Path) -> Path:
    """Where the names of those ids lie."""
    return path.with_suffix(".objects.json")


def write_ids(path: Path, ids: Tensor) -> None:
    """Ids (N,) of Gaussians, in the order of a file's rows, as NumPy's uint16."""
    with atomic_write(path) as temporary:
        np.save(temporary, ids.cpu().numpy().astype(np.uint16))


def read_ids(path: Path) -> Tensor:
    """Ids (N,) int64 that `write_ids` wrote, or of other integers that are ids.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a forged size allocates nothing
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: no ids in NumPy's format ({error}). Export them again.") from error
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"{path}: must be one row of whole numbers (N,). Export them again.")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < 65536:
        raise UserError(f"{path}: ids from {ids.min()} to {ids.max()}; they are 0 to 65535.")
    return torch.from_numpy(ids.astype(np.int64))


def write_names(path: Path, names: dict[int, str] | object) -> None:
    """Names of ids as JSON, `{"4": "ball"}`."""
    assert isinstance(names, dict)
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
