"""An object alone as files: a PLY, and beside it what makes it an object again: classifier, votes, names."""

from pathlib import Path

import torch
from torch import Tensor

from gradiseg.labelled import LabelledModel
from gradiseg.votes import save_votes
from scene.ply import read_ply, write_ply
from scene.run_folder import CLASSIFIER, POINT_CLOUD, VOTES
from utils.errors import UserError
from utils.files import atomic_write
from utils.json_files import read_json, write_json

NAMES = "objects.json"


def write_object(folder: Path, model: LabelledModel) -> None:
    """Write a labelled model into a folder: PLY, classifier, votes and names."""
    write_ply(folder / POINT_CLOUD, model.params)
    state = {"weight": model.weight[:, :, None, None].cpu(), "bias": model.bias.cpu()}
    with atomic_write(folder / CLASSIFIER) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
    save_votes(folder / VOTES, model.votes)
    write_names(folder / NAMES, model.names)


def read_object(path: Path) -> dict[str, Tensor]:
    """The Gaussians of a PLY file, or of the folder that `write_object` filled; as in `GaussianModel.params`.

    Raises:
        UserError: there is no such file, or it holds no Gaussians.
    """
    params = read_ply(path / POINT_CLOUD if path.is_dir() else path)
    if not len(params["xyz"]):
        raise UserError(f"{path}: holds no Gaussians. Choose another file.")
    return params


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
