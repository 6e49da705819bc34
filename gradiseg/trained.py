"""A trained run loaded for looking at it: its Gaussians, classifier and cameras.

Naming contract: `draw` is what `gaussian_renderer.render` returns for one camera, without gradients. Views
are in name order everywhere, so that number k is the same view in renders, predictions and `test_mask/k`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from arguments import DeviceParams, ModelParams
from gaussian_renderer import render
from gradiseg.classifier import load_conv
from gradiseg.votes import Votes, load_votes
from scene import GaussianModel, Scene
from scene.cameras import Camera
from scene.run_folder import RunFolder
from utils.device import select_device
from utils.errors import UserError


@dataclass(frozen=True)
class TrainedRun:
    """One saved iteration of a run."""

    folder: RunFolder
    iteration: int
    gaussians: GaussianModel
    classifier: nn.Conv2d
    votes: Votes | None  # None: a run of before they were stored, or of another tool
    train_cameras: Sequence[Camera]
    test_cameras: Sequence[Camera]
    background: Tensor  # (3,)

    @torch.no_grad()
    def draw(self, camera: Camera) -> dict[str, Tensor]:
        """Everything the renderer gives for a camera."""
        return render(camera, self.gaussians, bg_color=self.background)

    def render_identity(self, camera: Camera) -> Tensor:
        """Identity map (16, H, W) of a camera."""
        return self.draw(camera)["render_object"]


def load_run(model: ModelParams, pipeline: DeviceParams, iteration: int = -1) -> TrainedRun:
    """Loads a saved iteration, the latest for -1, with the cameras of its scene.

    Raises:
        UserError: the run, the iteration or the scene is not there.
    """
    scene, iteration, classifier = load_scene(model, pipeline, iteration)
    gaussians = scene.gaussians
    assert gaussians is not None  # as load_scene makes it
    train, test = (
        sorted(cameras, key=lambda camera: camera.image_name)
        for cameras in (scene.getTrainCameras(), scene.getTestCameras())
    )
    background = torch.full((3,), float(model.white_background), device=gaussians.device)
    votes = load_votes(scene.folder.votes(iteration), gaussians)
    return TrainedRun(scene.folder, iteration, gaussians, classifier, votes, train, test, background)


def load_scene(
    model: ModelParams, pipeline: DeviceParams, iteration: int = -1
) -> tuple[Scene, int, nn.Conv2d]:
    """The scene of a run with the Gaussians of a saved iteration, the iteration, its classifier.

    Raises: as `load_run`.
    """
    if pipeline.threads:
        torch.set_num_threads(pipeline.threads)
    device = select_device(pipeline.device)
    folder = RunFolder(Path(model.model_path))
    iteration = folder.latest_saved() if iteration < 0 else iteration
    folder.check_links()
    if not folder.ply(iteration).is_file():
        raise UserError(
            f"{folder.ply(iteration)}: not there. --iteration takes an iteration at which the run was saved."
        )
    if not folder.classifier(iteration).is_file():
        raise UserError(
            f"{folder.classifier(iteration)}: not there, so the Gaussians of this run have no ids (a run of "
            "3DGS?). Any viewer of 3DGS shows its point_cloud.ply; ids need a training: train.py."
        )
    classifier = load_conv(folder.classifier(iteration), device)
    model.num_classes = classifier.out_channels  # Gaussian Grouping's cfg_args does not hold it
    gaussians = GaussianModel(model.sh_degree, device)
    return Scene(model, gaussians, load_iteration=iteration, device=device), iteration, classifier
