"""Eq. 5: which terms are on when, and what each of them is."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fused_losses.reference import l1_ssim
from torch import Tensor

from arguments import GradiSegParams, OptimizationParams, RepairParams
from gaussian_renderer import render
from gradiseg.classifier import IdentityClassifier
from gradiseg.objective import Losses, Objective
from gradiseg.repair.labels import TrainingLabels
from gradiseg.schedule import Schedule
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from tests.gaussians import random_params, step_randomly
from utils.errors import UserError

IDS, NUM_CLASSES = [0, 3, 7], 32
WIDTH, HEIGHT, COUNT = 30, 20, 40
OPT = OptimizationParams(reg3d_sample_size=COUNT)
CONSTANT = RepairParams(identity_lambda_by_rgb=False)
GRADISEG = GradiSegParams(igd_from_iter=20, igd_until_iter=30, la_knn_from_iter=35, la_knn_candidates="8")
pytestmark = pytest.mark.usefixtures("one_thread")


def camera(
    masked: bool = True, uid: int = 0, ids: list[int] | None = None, image: Tensor | None = None
) -> Camera:
    """A view with random pixels, or `image` (3,H,W) uint8, and random ids."""
    generator = torch.Generator().manual_seed(uid)
    random = torch.randint(0, 256, (3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    image = random if image is None else image
    chosen = torch.tensor(ids or IDS, dtype=torch.uint8)
    objects = chosen[torch.randint(0, len(chosen), (HEIGHT, WIDTH), generator=generator)] if masked else None
    intrinsics = (25.0, 25.0, WIDTH / 2, HEIGHT / 2)
    return Camera(uid, "view", WIDTH, HEIGHT, *intrinsics, np.eye(3), np.zeros(3), image, objects)


def trained() -> GaussianModel:
    """Random Gaussians in front of the camera whose Adam has a first moment."""
    model = GaussianModel(3)
    params = random_params(COUNT)
    params["xyz"] = 0.5 * params["xyz"] + torch.tensor([0.0, 0.0, 3.0])
    model.set_params(params)
    model.training_setup(OptimizationParams())
    step_randomly(model, torch.Generator().manual_seed(1))
    return model


def classifier(ignore_label: int = -1) -> IdentityClassifier:
    """Random weights for the ids that occur."""
    torch.manual_seed(0)
    return IdentityClassifier(IDS, NUM_CLASSES, ignore_label)


def evaluate(
    iteration: int,
    opt: OptimizationParams = OPT,
    gradiseg: GradiSegParams = GRADISEG,
    view: Camera | None = None,
    repair: RepairParams = CONSTANT,
) -> tuple[Losses, dict[str, Tensor], IdentityClassifier]:
    """The losses of one iteration, the render they come from and the classifier."""
    view, model, weights = view or camera(), trained(), classifier(opt.ignore_label)
    package = render(view, model, bg_color=torch.zeros(3))
    torch.manual_seed(2)  # the sample of L_3d
    labels = TrainingLabels(weights)(view) if view.is_masked else None
    objective = Objective(Schedule(opt, gradiseg, repair), weights)
    return objective(iteration, view, labels, package, model), package, weights


def cross_entropy(package: dict[str, Tensor], weights: IdentityClassifier, view: Camera) -> Tensor:
    """Per-pixel cross-entropy (H W,) over the present ids by PyTorch."""
    assert view.objects is not None
    logits = weights(package["render_object"].flatten(1).T)  # (H W, K)
    labels = torch.tensor([IDS.index(int(identity)) for identity in view.objects.flatten()])
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize("repair", [CONSTANT, RepairParams()])
def test_the_tiles_give_the_map_s_loss_and_gradients(repair: RepairParams) -> None:
    view, model, weights = camera(), trained(), classifier()
    labels, objective = TrainingLabels(weights)(view), Objective(Schedule(OPT, GRADISEG, repair), weights)
    leaves = [*(model.params[name] for name in ("xyz", "obj_dc", "opacity")), *weights.parameters()]

    def gradients(in_tiles: bool) -> list[Tensor]:
        epilogue = objective.in_tiles(labels) if in_tiles else None
        rendered = render(view, model, bg_color=torch.zeros(3), identity_loss=epilogue)
        assert ("render_object" in rendered) != in_tiles
        loss = objective(1, view, labels, rendered, model).identity_2d
        assert loss is not None
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    for by_tiles, by_map in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(by_tiles, by_map, rtol=1e-4, atol=1e-5 * float(by_map.abs().max()))
    assert objective.in_tiles(None) is None  # of a view without a mask


@pytest.mark.parametrize(
    ("iteration", "on"),
    [
        (4, False),  # not a multiple of reg3d_interval
        (5, True),
        (20, True),
        (25, False),  # IGD's phase
        (35, False),
        (40, True),  # LA-KNN
        (30_000, True),  # to the end
    ],
)
def test_the_3d_term_follows_the_schedule(iteration: int, on: bool) -> None:
    losses, _, _ = evaluate(iteration)
    assert (losses.identity_3d is not None) == on
    assert losses.identity_2d is not None
    terms = [losses.rgb, losses.identity_2d] + (
        [losses.identity_3d] if losses.identity_3d is not None else []
    )
    torch.testing.assert_close(losses.total, torch.stack(terms).sum())


def test_without_la_knn_the_3d_term_stays_on() -> None:
    plain = replace(GRADISEG, la_knn=False)
    assert all(
        evaluate(iteration, gradiseg=plain)[0].identity_3d is not None for iteration in (5, 25, 35, 50)
    )


@pytest.mark.parametrize("candidates", ["8", "all"])
def test_the_phases_use_different_neighbours(candidates: str) -> None:
    gradiseg = replace(GRADISEG, la_knn_candidates=candidates)
    euclidean, adaptive = (evaluate(iteration, gradiseg=gradiseg)[0].identity_3d for iteration in (20, 40))
    assert euclidean is not None and adaptive is not None
    assert euclidean.item() > 0 and adaptive.item() > 0
    assert euclidean.item() != adaptive.item()


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_the_colour_term_is_3dgs(weight: float) -> None:
    view = camera()
    losses, package, _ = evaluate(1, replace(OPT, lambda_dssim=weight), view=view)
    expected = l1_ssim(package["render"].double(), view.original_image.double(), weight)
    assert losses.rgb.item() == pytest.approx(expected.item(), rel=1e-5)
    if weight == 0:
        assert losses.rgb.item() == pytest.approx(
            (package["render"] - view.original_image).abs().mean().item()
        )


def test_the_2d_term_is_the_cross_entropy_in_units_of_log_c() -> None:
    view = camera()
    losses, package, weights = evaluate(1, view=view)
    expected = cross_entropy(package, weights, view).mean() / math.log(NUM_CLASSES)
    assert losses.identity_2d is not None
    assert losses.identity_2d.item() == pytest.approx(expected.item(), rel=1e-5)


def test_unlabelled_pixels_can_be_ignored() -> None:
    opt, view = replace(OPT, ignore_label=0), camera()
    assert view.objects is not None
    losses, package, weights = evaluate(1, opt, view=view)
    logits = weights(package["render_object"].flatten(1).T)  # (H W, 2): no row for id 0
    known = view.objects.flatten() > 0
    labels = (view.objects.flatten()[known] == 7).long()
    expected = torch.nn.functional.cross_entropy(logits[known], labels) / math.log(NUM_CLASSES)
    assert losses.identity_2d is not None
    assert losses.identity_2d.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_view_without_a_mask_trains_on_colour_alone() -> None:
    losses, _, weights = evaluate(1, view=camera(masked=False))
    assert losses.identity_2d is None and losses.identity_3d is None
    assert losses.total is losses.rgb
    losses.total.backward()
    assert weights.weight.grad is None


def test_the_weights_multiply_their_terms() -> None:
    plain, _, _ = evaluate(5, replace(OPT, identity_lambda_val=1.0, reg3d_lambda_val=1.0))
    weighted, _, _ = evaluate(5, replace(OPT, identity_lambda_val=3.0, reg3d_lambda_val=5.0))
    assert plain.identity_2d is not None and weighted.identity_2d is not None
    assert plain.identity_3d is not None and weighted.identity_3d is not None
    assert weighted.rgb.item() == plain.rgb.item()
    assert weighted.identity_2d.item() == pytest.approx(3 * plain.identity_2d.item(), rel=1e-6)
    assert weighted.identity_3d.item() == pytest.approx(5 * plain.identity_3d.item(), rel=1e-6)


@pytest.mark.parametrize(("difference", "bounded"), [(0.02, False), (0.5, True)])
def test_alpha_follows_the_colour_loss_up_to_twice_its_value(difference: float, bounded: bool) -> None:
    pixels = render(camera(), trained(), bg_color=torch.zeros(3))["render"].detach() + difference
    view = camera(image=(255 * pixels.clamp(0, 1)).to(torch.uint8))
    constant, _, _ = evaluate(1, view=view)
    followed, package, _ = evaluate(
        1, replace(OPT, identity_lambda_val=3.0), view=view, repair=RepairParams()
    )
    assert constant.identity_2d is not None and followed.identity_2d is not None
    factor = constant.rgb.item() / 0.04
    assert (factor > 2) == bounded
    expected = 3 * min(factor, 2) * constant.identity_2d.item()
    assert followed.identity_2d.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(followed.identity_2d, package["render"], allow_unused=True)
    assert gradient is None  # alpha is a weight, not a way to lower the loss


@pytest.mark.parametrize("iteration", [5, 40])
def test_reg3d_normalize_divides_by_all_possible_classes(iteration: int) -> None:
    divided, _, _ = evaluate(iteration, replace(OPT, reg3d_normalize=True))
    whole, _, _ = evaluate(iteration, replace(OPT, reg3d_normalize=False))
    assert divided.identity_3d is not None and whole.identity_3d is not None
    assert whole.identity_3d.item() == pytest.approx(NUM_CLASSES * divided.identity_3d.item(), rel=1e-6)


@pytest.mark.parametrize("iteration", [5, 40])
def test_the_3d_term_is_zero_where_all_agree_and_moves_identities_alone(iteration: int) -> None:
    model, weights = trained(), classifier()
    objective = Objective(Schedule(OPT, GRADISEG, CONSTANT), weights)
    mode = "global" if iteration == 5 else "adaptive"
    loss = objective.identity_3d(model, mode)
    assert loss.item() > 0
    loss.backward()
    assert {name for name, value in model.params.items() if value.grad is not None} == {"obj_dc"}
    with torch.no_grad():
        model.params["obj_dc"][:] = model.params["obj_dc"][:1].clone()
    assert objective.identity_3d(model, mode).item() == pytest.approx(0.0, abs=1e-8)


def test_an_id_without_a_class_is_named() -> None:
    with pytest.raises(UserError, match="id 9 is none of the classifier's 3"):
        evaluate(1, view=camera(ids=[0, 3, 9]))


@pytest.mark.parametrize("candidates", ["4", "513"])
def test_candidates_that_la_knn_cannot_choose_from_are_refused_at_once(candidates: str) -> None:
    schedule = Schedule(OPT, replace(GRADISEG, la_knn_candidates=candidates), CONSTANT)
    with pytest.raises(UserError, match=f"--la_knn_candidates {candidates}: give 5"):
        Objective(schedule, classifier())
