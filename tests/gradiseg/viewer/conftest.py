"""A workspace over the four balls of `tests.labelled_scene`, and sessions that look at them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gradiseg.labelled import LabelledModel
from gradiseg.selection.free_view import entry_of
from gradiseg.trained import TrainedRun
from gradiseg.viewer.session import Session
from gradiseg.viewer.workspace import Workspace
from scene.cameras import Camera
from scene.run_folder import RunFolder
from tests.labelled_scene import CENTRES, camera, labelled_scene, views

SIZE = (96, 72)  # of a session's canvas


def trained_run(folder: Path, model: LabelledModel | None = None) -> TrainedRun:
    """The balls as a run that was trained."""
    model = model or labelled_scene()
    cameras, black = list(views().values()), torch.zeros(3)
    return TrainedRun(RunFolder(folder), 7, model.model(), model.classifier(), None, cameras, [], black)


def words_mark_the_left_half() -> object:
    """In the place of the models that find words."""

    def mark(picture: NDArray[np.uint8], prompts: list[str]) -> dict[str, NDArray[np.bool_]]:
        marks = np.zeros(picture.shape[:2], bool)
        marks[:, : picture.shape[1] // 2] = True
        return {prompt: marks & (prompt != "nothing") for prompt in prompts}

    return mark


@pytest.fixture
def workspace(tmp_path: Path, one_thread: None) -> Workspace:
    """The balls, opened."""
    return Workspace(trained_run(tmp_path), words_mark_the_left_half)  # type: ignore[arg-type]


@pytest.fixture
def session(workspace: Workspace) -> Session:
    """One client, who stands at view 0."""
    made = Session(workspace)
    made.look(entry_of(free_camera()))
    return made


def free_camera() -> Camera:
    """View 0 at the size of a canvas."""
    return camera().at_resolution(*SIZE)


def pixel_of(id: int) -> tuple[float, float]:
    """Where the middle of a ball shows on the canvas."""
    view = free_camera()
    x, y, z = view.R.T @ np.array(CENTRES[id]) + view.T
    return float(view.fx * x / z + view.cx), float(view.fy * y / z + view.cy)
