"""Times whole training steps: rendering, losses, backward pass, optimizers, densification bookkeeping.

    python benchmarks/bench_train_step.py --scene data/demo --threads 2 --json out.json

The rasterizer is checked against its PyTorch reference on the first view before anything is timed. The steps
are the first ones of `train.py`, or those after a checkpoint of it, which says what a trained model costs.
A model of 100,000 Gaussians from a scene of 637 x 358 pixels:

    python train.py -s SCENE -m RUN --train_split --config_file config/gradiseg/train.json \\
        --schedule_scale 0.4 --iterations 2500 --checkpoint_iterations 1000 --densify_from_iter 750 \\
        --densify_grad_threshold 1.5e-4 --max_gaussians 100000
    python benchmarks/bench_train_step.py --scene SCENE --model RUN/chkpnt1000.pth
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip
import torch

import gradiseg.training
from arguments import GradiSegParams, ModelParams, OptimizationParams, RepairParams
from benchmarks import common, machine
from gradiseg import checkpoint
from gradiseg.objective import Objective
from gradiseg.progress import peak_memory_mb
from gradiseg.schedule import Schedule
from gradiseg.training import Training
from scene import GaussianModel, Scene
from utils.errors import run_command
from utils.general import seed_everything
from utils.json_files import write_json
from utils.memory import keep_freed_memory

WARM_UP = 5  # steps that are not timed
NEVER = 10**9  # interval of what would change the model at once: its number of Gaussians, its opacities


class Stages:
    """Seconds spent in wrapped functions, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with its time added to the stage `name`."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        return wrapped

    def instrument(self, training: Training) -> None:
        """Wrap what `Training.step` calls; the backward pass is what remains of the step.

        On a CPU the identities' cross-entropy is part of rendering.
        """
        gradiseg.training.render = self.timed("render", gradiseg.training.render)
        Objective.__call__ = self.timed("losses", Objective.__call__)  # type: ignore[method-assign]
        for strategy in training.strategies:
            for method in ("after_backward", "step"):
                setattr(strategy, method, self.timed("densification", getattr(strategy, method)))
        for optimizer in (training.model.optimizer, training.classifier_optimizer):
            assert optimizer is not None
            optimizer.step = self.timed("optimizers", optimizer.step)  # type: ignore[method-assign]


def prepare(options: argparse.Namespace, folder: str) -> Training:
    """The training whose steps are timed."""
    seed_everything(0)
    args = ModelParams(
        source_path=options.scene,
        model_path=folder,
        resolution=options.resolution,
        train_split=Path(options.scene, "images_train").is_dir(),
    )
    opt = OptimizationParams(densification_interval=NEVER, opacity_reset_interval=NEVER)
    schedule = Schedule(opt, GradiSegParams(igd_interval=NEVER), RepairParams(repair_masks=False))
    scene = Scene(args, GaussianModel(args.sh_degree))
    training = Training(args, schedule, scene)
    if options.checkpoint:
        training.load_state_dict(checkpoint.load(options.checkpoint))
    elif options.num_gaussians and options.num_gaussians != training.model.num_gaussians:
        common.resample(training.model, options.num_gaussians)
        training.model.training_setup(training.opt)
    return training


def beside_reference(options: argparse.Namespace) -> dict[str, Any]:
    """The rasterizer against its reference on the first view of this training."""
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        training = prepare(options, folder)
        return common.compare(training.model, training.cameras[0], **common.COMPARED)


def measure(training: Training, steps: int) -> dict[str, Any]:
    """Milliseconds per step, and of its stages, under the conditions of `train.train`."""
    keep_freed_memory()
    gc.freeze()
    for _ in range(WARM_UP):
        training.step()
    stages = Stages()
    stages.instrument(training)
    start = time.perf_counter()
    for _ in range(steps):
        training.step()
    total = time.perf_counter() - start
    stages.seconds["backward"] = total - sum(stages.seconds.values())
    return {
        "ms_per_step": 1e3 * total / steps,
        "stages": {name: 1e3 * seconds / steps for name, seconds in stages.seconds.items()},
    }


def main() -> None:
    """Read the options, check, measure, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scene", required=True, help="scene folder")
    parser.add_argument("-r", "--resolution", type=int, default=1, help="as train.py takes it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--num_gaussians", type=int, help="resample the scene's points to this many")
    model.add_argument("--model", dest="checkpoint", help="chkpnt*.pth of train.py to go on from")
    parser.add_argument("--steps", type=int, default=60, help="training steps that are timed")
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args()
    reference = machine.alone(beside_reference, options)  # it takes gigabytes, which peak_mb must not count
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        training = prepare(options, folder)
        figures = measure(training, options.steps)
    camera = training.cameras[0]
    result = {
        "scene": Path(options.scene).resolve().name,
        "image": [camera.image_width, camera.image_height],
        "num_gaussians": training.model.num_gaussians,
        "threads": options.threads,
        **figures,
        "peak_mb": peak_memory_mb(),
        "ratio_to_reference": reference["ratio_to_reference"],
        "reference": reference,
        "environment": machine.environment(),
    }
    print(json.dumps(result, indent=2))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_command(main)
