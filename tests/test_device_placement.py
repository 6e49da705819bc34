"""Training stays on its device, and a step never waits for it: shown without a GPU, without values.

Tensors on the device `meta` have a shape and no data. To mix them with others is an error, and so is every
question for a value, for which the host would wait on a GPU. The compiled kernels, which have tests of their
own, are replaced by expressions of the same shapes.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from simple_knn import PointTree
from torch import Tensor, nn

import gaussian_renderer
import train
from arguments import GradiSegParams, OptimizationParams, RepairParams, parse
from gradiseg import boundary, checkpoint, objective
from gradiseg.alone import AloneLoss, Object
from gradiseg.boundary import BoundaryLoss
from gradiseg.classifier import IdentityClassifier
from gradiseg.igd import IdentityGradientDensification
from gradiseg.objective import Objective
from gradiseg.repair.labels import TrainingLabels
from gradiseg.schedule import Schedule
from gradiseg.training import Training
from scene import GaussianModel, Scene
from scene.cameras import Camera
from scene.densification import DefaultDensification
from scene.gaussian_model import parameter_shapes
from scene.run_folder import RunFolder
from tests.test_train import DEMO, POINTS, SCHEDULE

GPU = torch.device("meta")
COUNT, WIDTH, HEIGHT, CLASSES = 300, 40, 30, 5


class Rasterizer:
    """Images of the shapes and devices that the rasterizer's have, differentiable by every argument."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def __call__(self, sh_objs: Tensor, shs: Any = (), **arguments: Tensor | None) -> tuple[Tensor, ...]:
        s = self.settings
        total = sum(tensor.sum() for tensor in (*shs, *arguments.values()) if tensor is not None)
        total = total + s.viewmatrix.sum() + s.projmatrix.sum() + s.campos.sum()
        color = (s.bg + total)[:, None, None].expand(3, s.image_height, s.image_width)
        objects = sh_objs.mean(0)[0, :, None, None].expand(-1, s.image_height, s.image_width) + total
        return color, sh_objs[:, 0, 0].int(), objects


class Optimizer(torch.optim.Optimizer):
    """Descends, and keeps what the losses read of Adam."""

    def __init__(self, groups: Any, **defaults: float) -> None:
        super().__init__(groups, {"lr": 1e-3, **defaults})

    @torch.no_grad()
    def step(self, visible: Tensor | None = None) -> None:  # type: ignore[override]
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.grad is not None:
                parameter -= parameter.grad
                self.state[parameter]["exp_avg"] = parameter.grad


def cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, **_: Any) -> Tensor:
    """A scalar of everything."""
    return torch.einsum("cd,dhw->chw", weight, features).mean() + bias.mean() + labels.float().mean()


def neighbours(points: Tensor, queries: Tensor, k: int, exclude: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and distances from everything."""
    distances = (points.sum() + queries.sum(1) + exclude)[:, None].expand(-1, k)
    return distances.long(), distances


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiled code."""
    monkeypatch.setattr(gaussian_renderer, "GaussianRasterizer", Rasterizer)
    monkeypatch.setattr("fused_losses.Adam", Optimizer)
    monkeypatch.setattr(objective, "l1_ssim", lambda image, target, _: (image - target).abs().mean())
    for module in (objective, boundary):
        monkeypatch.setattr(module, "linear_cross_entropy", cross_entropy)
    monkeypatch.setattr(PointTree, "knn", lambda self, *arguments, **named: neighbours(*arguments, **named))


def training(schedule: Schedule) -> Training:
    """A run on a GPU whose photograph and id map are in main memory."""
    run = object.__new__(Training)
    run.schedule, run.opt, run.iteration, run.camera_order = schedule, schedule.opt, 0, []
    run.model = GaussianModel(3, GPU)
    shapes = parameter_shapes(3).items()
    run.model.set_params({name: torch.zeros(COUNT, *shape, device=GPU) for name, shape in shapes})
    run.model.training_setup(run.opt)
    view = (0, "view", WIDTH, HEIGHT, 25.0, 25.0, WIDTH / 2, HEIGHT / 2, np.eye(3), np.zeros(3))
    pixels = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    run.cameras = [Camera(*view, *pixels).with_matrices_on(GPU)]
    run.scene = SimpleNamespace(cameras_extent=1.0)  # type: ignore[assignment]
    run.classifier = classifier()
    run.classifier_optimizer = Optimizer(run.classifier.parameters())  # type: ignore[assignment]
    run.labels = TrainingLabels(run.classifier)
    run.objective = Objective(schedule, run.classifier)
    run.boundary, run.alone = BoundaryLoss(), AloneLoss()
    some = torch.zeros(COUNT, dtype=torch.int64, device=GPU)
    run.boundary.owners, run.boundary.decided, run.boundary.pull = some, some.bool(), some.float()
    run.boundary.of_label, run.boundary.elected = some[:CLASSES], 20_000  # no election, which waits, is due
    run.alone.objects = {1: Object(some, torch.zeros(COUNT, 3, device=GPU), np.zeros(3))}
    run.alone.in_view = {"view": [1]}
    run.strategies = [DefaultDensification(run.opt), IdentityGradientDensification(schedule)]
    run.background = torch.zeros(3, device=GPU)
    return run


def classifier() -> IdentityClassifier:
    """The classifier after its first pass, whose labels have been looked up."""
    made = object.__new__(IdentityClassifier)
    nn.Module.__init__(made)
    made.num_classes = CLASSES
    made.weight = nn.Parameter(torch.zeros(CLASSES, 16, device=GPU))
    made.bias = nn.Parameter(torch.zeros(CLASSES, device=GPU))
    made.labels = lambda id_map: torch.zeros(HEIGHT, WIDTH, dtype=torch.int16, device=GPU)  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("max_points", [COUNT, COUNT // 2])
@pytest.mark.parametrize("iteration", [5, 12_005, 15_010, 15_008], ids=["3dgs", "igd", "la_knn", "boundary"])
def test_a_step_mixes_no_devices_and_asks_for_no_value(iteration: int, max_points: int) -> None:
    opt = OptimizationParams(reg3d_sample_size=50, reg3d_max_points=max_points)
    run = training(Schedule(opt, GradiSegParams(), RepairParams()))
    run.iteration = iteration - 2  # the step before has given Adam its running mean; no densification is due
    run.step()
    losses = run.step()
    assert losses.identity_2d is not None and (losses.boundary is not None) == (iteration == 15_008)
    assert (losses.identity_3d is None) == (iteration in (12_005, 15_008))  # IGD's phase has no 3D loss
    assert losses.total.device == GPU
    tensors = [*run.model.params.values(), *run.model.state.values(), *run.classifier.parameters()]
    assert all(tensor.device == GPU for tensor in tensors)


def test_no_tensor_is_left_to_the_default_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The roles change: the CPU is the run's device, and what names no device gets one without values."""
    monkeypatch.undo()  # with the kernels
    config = tmp_path / "short.json"
    config.write_text(json.dumps(SCHEDULE))
    flags = ["-s", DEMO, "-m", tmp_path / "run", "-r", 4, "--train_split", "--quiet", "--config_file", config]
    args, _, *groups, _ = parse(train.GROUPS, list(map(str, flags)))
    run = Training(args, Schedule(*groups), Scene(args, GaussianModel(3)))
    with GPU:
        while run.iteration < run.opt.iterations:
            run.step()
        run.test()
        run.save_model(RunFolder(tmp_path / "run"))
        checkpoint.save(tmp_path / "checkpoint.pth", run.state_dict())
    assert run.model.num_gaussians > POINTS


def test_what_the_step_is_held_to_is_seen() -> None:
    value = torch.zeros(3, device=GPU)
    with pytest.raises(RuntimeError, match="device"):
        value + torch.zeros(3)
    for question in (
        lambda: float(value.sum()),
        lambda: bool(value.any()),
        value.cpu,
        lambda: value[value > 0],
    ):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            question()
