"""Train a GradiSeg model of one scene.

    python train.py -s data/demo -m output/demo --config_file config/gradiseg/train.json --train_split

The run, top to bottom: read the scene, then for every iteration render a view, take the losses of eq. 5, step
both optimizers and let the densification strategies (3DGS's, then IGD) change the Gaussians.
"""

import utils.openmp  # noqa: F401  # isort: skip

import gc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

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
from gradiseg import checkpoint
from gradiseg.objective import Losses
from gradiseg.progress import Progress
from gradiseg.schedule import Schedule
from gradiseg.training import Training
from scene import GaussianModel, Scene
from scene.run_folder import RunFolder
from utils.device import select_device
from utils.errors import UserError, run_command
from utils.general import seed_everything
from utils.log import set_up
from utils.memory import keep_freed_memory
from utils.stop_signals import StopSignals

GROUPS = (ModelParams, DeviceParams, OptimizationParams, GradiSegParams, RepairParams, RunParams)


def checkpoint_is_due(iteration: int, run: RunParams) -> bool:
    """Whether the flags ask for one after this iteration."""
    interval = run.checkpoint_interval
    return iteration in run.checkpoint_iterations or bool(interval and iteration % interval == 0)


def save_checkpoint(training: Training, progress: Progress, folder: RunFolder) -> Path:
    """The log first: a kill between the two leaves entries too many, which resuming drops."""
    progress.save_log()
    path = folder.checkpoint(training.iteration)
    checkpoint.save(path, training.state_dict())
    return path


def train(
    training: Training,
    progress: Progress,
    folder: RunFolder,
    run: RunParams,
    shown: Callable[[Training, Losses], None] | None = None,
) -> None:
    """Run to the last iteration, or to Ctrl-C or SIGTERM; `shown` is called after each.

    Raises: UserError in the latter case; a checkpoint has been saved then.
    """
    last = training.opt.iterations
    keep_freed_memory()
    gc.freeze()  # what set-up built stays: collections need look only at what the iterations leave
    progress.start()
    with StopSignals() as stop:
        while training.iteration < last and not stop.received:
            losses = training.step()
            progress.update(training.iteration, losses, training.model.num_gaussians)
            if shown is not None:
                shown(training, losses)
            if training.iteration in run.test_iterations:
                progress.test_scores(training.iteration, *training.test())
            if training.iteration in run.save_iterations:
                training.save_model(folder)
            if checkpoint_is_due(training.iteration, run):
                save_checkpoint(training, progress, folder)
        progress.close(training.iteration)
        if training.iteration < last:
            path = save_checkpoint(training, progress, folder)
            raise UserError(
                f"stopped at iteration {training.iteration} of {last}. Add --resume to go on from {path}."
            )
    if not folder.ply(last).is_file():  # a checkpoint of the last iteration was taken elsewhere
        training.save_model(folder)


def viewer_of(run: RunParams) -> ModuleType | None:
    """The module that shows the training, if --viewer asks for it: with it comes all that edits.

    Raises: UserError where viser is not installed, or the port is taken.
    """
    if not run.viewer:
        return None
    from gradiseg.viewer import live

    live.check_viewer(run.viewer)
    return live


def main(argv: list[str] | None = None) -> None:
    """Read the options, set up the run, train. Nothing is written before all has been read and checked."""
    args, pipe, opt, gradiseg, repair, run = parse(GROUPS, argv, prog="train.py", description=__doc__)
    set_up(run.quiet)
    folder = RunFolder.for_training(args.model_path, run.overwrite, bool(run.resume))
    if pipe.threads:
        torch.set_num_threads(pipe.threads)
    live = viewer_of(run)
    seed_everything(run.seed)
    device = select_device(pipe.device)
    state = None
    if run.resume:  # before the photographs, which take longer
        state = checkpoint.load(folder.latest_checkpoint() if run.resume == NEWEST else run.resume)
    scene = Scene(args, GaussianModel(args.sh_degree, device), device=device)
    schedule = Schedule(opt, gradiseg, repair).scaled(opt.schedule_scale)
    training = Training(args, schedule, scene)
    if state is not None:
        training.load_state_dict(state)
    if training.iteration > schedule.opt.iterations:
        raise UserError(
            f"the checkpoint is of iteration {training.iteration}, but the run ends at "
            f"{schedule.opt.iterations}. Choose an older one, or raise --iterations."
        )
    progress = Progress(folder, training.iteration, schedule.opt.iterations)

    folder.begin(run.overwrite)
    write_cfg_args(args.model_path, args, opt, gradiseg, repair)
    scene.write_start()
    last = schedule.opt.iterations
    with live.shown(args, pipe, run.viewer, last) if live else nullcontext() as shown:
        train(training, progress, folder, run, shown)
    groups = (args, schedule.opt, schedule.gradiseg, schedule.repair, run)
    config = {key: value for group in groups for key, value in asdict(group).items()}
    progress.save_summary(training.model.num_gaussians, config)


if __name__ == "__main__":
    run_command(main)
