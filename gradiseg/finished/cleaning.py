"""A finished model whose objects are cleaned: boundary steps without the training before them.

For runs that were trained without (`boundary_interval` 0, or by Gaussian Grouping). The model trains on for
some hundred iterations, every second of them a boundary step (`gradiseg.boundary`); positions move at the
last learning rate of a training, and no Gaussian comes or goes. Labels are the masks', repaired by what the
model renders.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from arguments import GradiSegParams, ModelParams, OptimizationParams, RepairParams
from gradiseg.classifier import occurring_rows
from gradiseg.schedule import Schedule
from gradiseg.training import Training
from scene import Scene
from utils.errors import UserError, some

INTERVAL = 2  # every so many iterations are a boundary step


def ignored_label(class_ids: Iterable[int], classifier: nn.Conv2d) -> int:
    """The one of the masks' ids that the run was told to ignore, so that it has no row; -1 = none."""
    strange = sorted(set(class_ids) - set(occurring_rows(classifier).ids.tolist()))
    if len(strange) > 1:
        raise UserError(
            f"the training masks: the run has not learned their ids {some([str(id) for id in strange])}. "
            "Give the masks that trained it (--object_path), or train anew."
        )
    return strange[0] if strange else -1


def schedule_of(steps: int, ignore_label: int = -1) -> Schedule:
    """That of cleaning: no phase but the last one of a training, with all repairs made before it."""
    opt = OptimizationParams(ignore_label=ignore_label)
    opt = replace(opt, iterations=steps, densify_until_iter=0, position_lr_init=opt.position_lr_final)
    gradiseg = GradiSegParams(igd=False, la_knn_from_iter=0)
    return Schedule(opt, gradiseg, RepairParams(boundary_interval=INTERVAL), repair_until=0)


def cleaning_of(args: ModelParams, scene: Scene, classifier: nn.Conv2d, steps: int) -> Training:
    """The training that cleans the Gaussians of `scene`, whose identities `classifier` tells apart.

    Raises: UserError where the masks hold several ids that it has not learned.
    """
    assert scene.gaussians is not None
    scene.gaussians.spatial_lr_scale = scene.cameras_extent  # which a PLY does not hold
    training = Training(args, schedule_of(steps, ignored_label(scene.class_ids, classifier)), scene)
    rows, bias = training.classifier.class_ids, classifier.bias
    assert bias is not None  # as load_conv makes it
    with torch.no_grad():
        training.classifier.weight.copy_(classifier.weight.flatten(1)[rows])
        training.classifier.bias.copy_(bias[rows])
    margin = training.schedule.repair.repair_margin
    training.labels.repair(training.cameras, training.render_identity, margin)
    return training


def moved(before: Tensor, after: Tensor) -> dict[str, int]:
    """How many Gaussians changed hands, by the ids (N,) before and after: `"3 > 5"` -> number."""
    pairs, counts = torch.stack([before, after], 1)[before != after].unique(dim=0, return_counts=True)
    return {f"{old} > {new}": int(count) for (old, new), count in zip(pairs.tolist(), counts, strict=True)}
