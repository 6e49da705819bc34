"""Train a GradiSeg model of one scene.

    python train.py -s data/demo -m output/demo --config_file config/gradiseg/train.json --train_split

The run, top to bottom: read the scene, then for every iteration render a view, take the losses of eq. 5, step
both optimizers and let the densification strategies (3DGS's, then IGD) change the Gaussians.
"""

import utils.openmp  # noqa: F401  # isort: skip

import gc
import logging
import random
import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import torch

from arguments import (
    NEWEST,
    DeviceParams,
    GradiSegParams,
    ModelParams,
    OptimizationParams,
    RepairParams,
    RunParams,
    parse,
    write_cfg_args,
)
from gaussian_renderer import render
from gradiseg import checkpoint
from gradiseg.classifier import IdentityClassifier
from gradiseg.igd import IdentityGradientDensification
from gradiseg.objective import Losses, Objective
from gradiseg.progress import Progress
from gradiseg.schedule import repair_is_due, scaled_schedule
from scene import GaussianModel, Scene
from scene.cameras import Camera
from scene.checks import check_output_folder, clear_output_folder
from scene.densification import DefaultDensification, DensificationStrategy
from utils.device import select_device
from utils.errors import UserError, run_command
from utils.files import atomic_write
from utils.general import seed_everything
from utils.image import psnr
from utils.memory import keep_freed_memory

GROUPS = (ModelParams, DeviceParams, OptimizationParams, GradiSegParams, RepairParams, RunParams)
TEST_PICTURES = 3  # test views shown in TensorBoard


class Training:
    """One run: everything that changes from iteration to iteration, and the steps that change it."""

    def __init__(
        self,
        args: ModelParams,
        pipe: DeviceParams,
        opt: OptimizationParams,
        gradiseg: GradiSegParams,
        repair: RepairParams,
        run: RunParams,
    ) -> None:
        self.args, self.opt, self.gradiseg, self.repair, self.run = args, opt, gradiseg, repair, run
        self.device = select_device(pipe.device)
        self.model = GaussianModel(args.sh_degree, self.device)
        self.scene = Scene(args, self.model, device=self.device, quiet=run.quiet)
        self.cameras = self.scene.getTrainCameras()
        self.camera_order: list[int] = []  # views that the current pass has yet to show
        self.model.training_setup(opt)
        self.classifier = IdentityClassifier(self.scene.class_ids, args.num_classes, opt.ignore_label).to(
            self.device
        )
        self.classifier_optimizer = torch.optim.Adam(self.classifier.parameters(), lr=opt.classifier_lr)
        self.objective = Objective(opt, gradiseg, repair, self.classifier)
        if repair.repair_masks and repair.correct_outlines:
            self.objective.labels.correct_outlines(self.cameras, run.quiet)
        self.strategies: list[DensificationStrategy] = [
            DefaultDensification(opt, args.white_background),
            IdentityGradientDensification(opt, gradiseg),
        ]
        self.background = torch.full((3,), float(args.white_background), device=self.device)
        self.iteration = 0
        self.stopped = False

    def start_from(self, path: str | Path) -> None:
        """Go on from a checkpoint."""
        contents = checkpoint.load(path)
        self.iteration, self.camera_order = checkpoint.restore(
            contents,
            self.model,
            self.opt,
            self.classifier,
            self.classifier_optimizer,
            self.objective.labels,
        )

    def step(self) -> Losses:
        """One iteration, which begins with the densification that is due after the one before.

        So a model is saved as it was optimised, not with opacities that were reset a moment ago.
        """
        if repair_is_due(self.iteration, self.opt, self.repair):
            self.objective.labels.repair(self.cameras, self.render_identity, self.repair.repair_margin)
        if self.iteration > 0:
            for strategy in self.strategies:
                strategy.step(self.model, self.iteration, self.scene.cameras_extent)
        self.iteration += 1
        self.model.update_learning_rate(self.iteration)
        if self.iteration % self.opt.sh_interval == 0:
            self.model.oneupSHdegree()
        if not self.camera_order:
            self.camera_order = random.sample(range(len(self.cameras)), len(self.cameras))
        camera = self.cameras[self.camera_order.pop()]
        if self.camera_order:
            self.cameras[self.camera_order[-1]].prefetch()

        rendered = render(
            camera,
            self.model,
            bg_color=self.background,
            identity_geometry_grad=self.opt.identity_geometry_grad,
        )
        losses = self.objective(self.iteration, camera, rendered, self.model)
        losses.total.backward()

        for strategy in self.strategies:
            strategy.after_backward(self.model, rendered, self.iteration)
        assert self.model.optimizer is not None  # since training_setup
        self.model.optimizer.step()
        self.classifier_optimizer.step()
        for optimizer in (self.model.optimizer, self.classifier_optimizer):
            optimizer.zero_grad(set_to_none=True)
        return losses

    def render_identity(self, camera: Camera) -> torch.Tensor:
        """Identity map (16, H, W) of a view."""
        return render(camera, self.model, bg_color=self.background)["render_object"]

    @torch.no_grad()
    def test(self, progress: Progress) -> None:
        """PSNR of the test views, and a few of their pictures for TensorBoard."""
        cameras = self.scene.getTestCameras()
        if not cameras:
            return
        scores: list[float] = []
        pictures: dict[str, torch.Tensor] = {}
        for camera in cameras:
            image = render(camera, self.model, bg_color=self.background)["render"].clamp(0, 1)
            scores.append(float(psnr(image, camera.original_image)))
            if len(pictures) < TEST_PICTURES:
                pictures[camera.image_name] = torch.cat([camera.original_image, image], 2)
        progress.test_scores(self.iteration, {"psnr": sum(scores) / len(scores)}, pictures)

    def save_model(self) -> None:
        """The PLY and the classifier of this iteration."""
        self.scene.save(self.iteration)
        folder = Path(self.args.model_path, "point_cloud", f"iteration_{self.iteration}")
        state = {name: tensor.cpu() for name, tensor in self.classifier.full_state_dict().items()}
        with atomic_write(folder / "classifier.pth") as temporary, open(temporary, "wb") as file:
            torch.save(state, file)  # given a name, it would store that too

    def save_checkpoint(self) -> Path:
        """Everything that the run needs to go on bit for bit."""
        path = Path(self.args.model_path, f"chkpnt{self.iteration}.pth")
        checkpoint.save(
            path,
            self.iteration,
            self.model,
            self.classifier,
            self.classifier_optimizer,
            self.objective.labels,
            self.camera_order,
        )
        return path

    def checkpoint_is_due(self) -> bool:
        """Whether the flags ask for one after this iteration."""
        interval = self.run.checkpoint_interval
        return self.iteration in self.run.checkpoint_iterations or bool(
            interval and self.iteration % interval == 0
        )

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """Ctrl-C: finish the iteration first; a second one ends at once."""
        self.stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def train(training: Training) -> None:
    """Run to the last iteration, or to Ctrl-C."""
    run, last = training.run, training.opt.iterations
    progress = Progress(training.args.model_path, training.iteration, last, run.quiet)
    keep_freed_memory()
    gc.freeze()  # what set-up built stays: collections need look only at what the iterations leave
    previous_handler = signal.signal(signal.SIGINT, training.stop)
    try:
        while training.iteration < last and not training.stopped:
            losses = training.step()
            progress.update(training.iteration, losses, training.model.num_gaussians)
            if training.iteration in run.test_iterations:
                training.test(progress)
            if training.iteration in run.save_iterations:
                training.save_model()
            if training.checkpoint_is_due() or training.stopped:
                path = training.save_checkpoint()
                progress.save_log()
    finally:
        signal.signal(signal.SIGINT, previous_handler)
    groups = (training.args, training.opt, training.gradiseg, training.repair, run)
    config = {key: value for group in groups for key, value in asdict(group).items()}
    progress.finish(training.iteration, training.model.num_gaussians, config)
    if training.iteration < last:
        raise UserError(
            f"stopped at iteration {training.iteration} of {last}. Add --resume to go on from {path}."
        )


def main(argv: list[str] | None = None) -> None:
    """Read the options, set up the run, train."""
    args, pipe, opt, gradiseg, repair, run = parse(GROUPS, argv, prog="train.py", description=__doc__)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    check_output_folder(args.model_path, run.overwrite, bool(run.resume))
    if pipe.threads:
        torch.set_num_threads(pipe.threads)
    seed_everything(run.seed)
    training = Training(args, pipe, *scaled_schedule(opt, gradiseg, repair, opt.schedule_scale), run)
    if run.overwrite:
        clear_output_folder(args.model_path)  # not before everything has been read and checked
    if run.resume:
        training.start_from(checkpoint.latest(args.model_path) if run.resume == NEWEST else run.resume)
    write_cfg_args(args.model_path, args, opt, gradiseg, repair)
    train(training)


if __name__ == "__main__":
    run_command(main)
