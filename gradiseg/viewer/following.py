"""A training that goes on: its checkpoints are read as they appear, and shown until somebody edits.

The training is not asked for anything: what it loses is the time that pictures take on the same machine.
"""

import threading
import time
from pathlib import Path

import torch
from torch import nn

from arguments import DeviceParams, ModelParams
from gradiseg import checkpoint
from gradiseg.classifier import IdentityClassifier
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
    if device.threads:
        torch.set_num_threads(device.threads)
    place = select_device(device.device)
    folder = RunFolder(Path(model.model_path))
    iteration, gaussians, classifier = read_checkpoint(folder.latest_checkpoint(), model.num_classes, place)
    scene = Scene(model, None, device=place)
    train, test = (
        sorted(cameras, key=lambda camera: camera.image_name)
        for cameras in (scene.getTrainCameras(), scene.getTestCameras())
    )
    background = torch.full((3,), float(model.white_background), device=place)
    return TrainedRun(folder, iteration, gaussians, classifier, None, train, test, background)


def read_checkpoint(
    path: Path, num_classes: int, device: torch.device
) -> tuple[int, GaussianModel, nn.Conv2d]:
    """Iteration, Gaussians and classifier of a checkpoint."""
    state = checkpoint.load(path)
    gaussians = GaussianModel(state["model"]["max_sh_degree"], device)
    gaussians.restore(state["model"])
    dense = IdentityClassifier(state["classifier"]["class_ids"], num_classes)
    dense.load_state_dict(state["classifier"])
    conv = nn.Conv2d(dense.weight.shape[1], num_classes, 1)
    conv.load_state_dict(dense.full_state_dict())
    return state["iteration"], gaussians, conv.to(device).requires_grad_(False).eval()


def progress_of(folder: RunFolder, iterations: int) -> str:
    """How far the training is, as its log says; the log is written with every checkpoint."""
    try:
        last = read_json(folder.training_log)[-1]
        return (
            f"training: iteration {last['iteration']:,} of {iterations:,}, loss {last['loss']:.4f}, "
            f"{last['num_gaussians']:,} Gaussians"
        )
    except (UserError, LookupError, TypeError, ValueError):
        return "training: no log yet"


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
        run = self.workspace.run
        try:
            read = read_checkpoint(newest, run.classifier.out_channels, run.background.device)
        except UserError:
            return False  # replaced or deleted meanwhile
        return self.workspace.follow(*read, note=progress_of(self.folder, self.iterations))
