"""A training that goes on: its checkpoints are read as they appear, and shown until somebody edits.

The training is not asked for anything: what it loses is the time that pictures take on the same machine.
"""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from arguments import DeviceParams, ModelParams
from gradiseg import checkpoint
from gradiseg.classifier import IdentityClassifier, conv_of
from gradiseg.trained import TrainedRun
from gradiseg.viewer.workspace import Workspace
from scene import GaussianModel, Scene
from scene.run_folder import RunFolder
from utils.device import select_device
from utils.errors import UserError
from utils.json_files import read_json

SECONDS = 2.0  # between two looks into the folder


def run_of_checkpoint(model: ModelParams, device: DeviceParams) -> TrainedRun:
    """The latest checkpoint of a run, with the cameras of its scene.

    Raises: UserError where there is none, or the scene cannot be read.
    """
    return run_of_state(checkpoint.load(RunFolder(Path(model.model_path)).latest_checkpoint()), model, device)


def run_of_state(state: Mapping[str, Any], model: ModelParams, device: DeviceParams) -> TrainedRun:
    """A state of a training, as `restored` takes it, with the cameras of its scene."""
    if device.threads:
        torch.set_num_threads(device.threads)
    place = select_device(device.device)
    scene = Scene(model, None, device=place)
    gaussians, classifier = restored(state, model.num_classes, place, scene.info.origin)
    train, test = (
        sorted(cameras, key=lambda camera: camera.image_name)
        for cameras in (scene.getTrainCameras(), scene.getTestCameras())
    )
    background = torch.full((3,), float(model.white_background), device=place)
    folder = RunFolder(Path(model.model_path))
    return TrainedRun(folder, state["iteration"], gaussians, classifier, None, train, test, background)


def restored(
    state: Mapping[str, Any], num_classes: int, device: torch.device, origin: NDArray[np.float64]
) -> tuple[GaussianModel, nn.Conv2d]:
    """Gaussians and classifier of a state of a training; of its model only the parameters are read."""
    gaussians = GaussianModel(state["model"]["max_sh_degree"], device)
    gaussians.set_params(state["model"]["params"])
    gaussians.origin = origin
    dense = IdentityClassifier(state["classifier"]["class_ids"], num_classes)
    dense.load_state_dict(state["classifier"])
    full = dense.full_state_dict()
    return gaussians, conv_of(full["weight"].to(device), full["bias"].to(device))


def show(workspace: Workspace, state: Mapping[str, Any], note: str) -> bool:
    """Show a state of the workspace's training; False where something was, or is being, edited."""
    run = workspace.run
    made = restored(state, run.classifier.out_channels, run.background.device, run.gaussians.origin)
    try:
        return workspace.follow(state["iteration"], *made, note=note)
    except UserError:
        return False


def progress_of(entry: Any, iterations: int) -> str:
    """How far a training is, for people: `entry` is the last one of its log."""
    try:
        return (
            f"training: iteration {entry['iteration']:,} of {iterations:,}, loss {entry['loss']:.4f}, "
            f"{entry['num_gaussians']:,} Gaussians"
        )
    except (LookupError, TypeError, ValueError):
        return "training: no log yet"


def last_entry(folder: RunFolder) -> Any:
    """The last entry of a run's log, which is written with every checkpoint; None where there is none."""
    try:
        return read_json(folder.training_log)[-1]
    except (UserError, LookupError, TypeError):
        return None


class Follower:
    """Shows the newest checkpoint of an unfinished run in a workspace, as long as nothing was edited."""

    def __init__(self, workspace: Workspace, iterations: int) -> None:
        self.workspace, self.iterations = workspace, iterations
        self.folder = workspace.run.folder

    def start(self) -> None:
        """Look again and again, in a thread of its own, until the training has ended."""
        threading.Thread(target=self._run, name="following", daemon=True).start()

    def _run(self) -> None:
        while not self.folder.finished:
            time.sleep(SECONDS)
            self.look()
        self.workspace.note = "the training has ended: open the run again for its last model"

    def look(self) -> bool:
        """Whether there was something new, which is shown now."""
        try:
            newest = self.folder.latest_checkpoint()
        except UserError:
            return False
        if newest == self.folder.checkpoint(self.workspace.run.iteration):
            return False
        try:
            state = checkpoint.load(newest)
        except UserError:
            return False  # replaced or deleted meanwhile
        return show(self.workspace, state, progress_of(last_entry(self.folder), self.iterations))
