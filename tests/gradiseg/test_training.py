"""The state of a training is all that going on needs; another scene's is refused before anything changes."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arguments import GradiSegParams, ModelParams, OptimizationParams, RepairParams
from gradiseg import checkpoint
from gradiseg.schedule import Schedule
from gradiseg.training import Training
from gradiseg.votes import load_votes
from scene import GaussianModel, Scene
from scene.gaussian_ops import keep
from scene.run_folder import RunFolder
from tests.disc_scene import CLASSES, write_scene
from tests.gaussians import rows
from utils.errors import UserError
from utils.general import seed_everything

# 3DGS's densification after 4, a repair after 8, IGD after 10 and 12, LA-KNN from 12 on,
# boundary steps at 14 and 16.
OPT = OptimizationParams(
    densify_from_iter=2,
    densify_until_iter=8,
    densification_interval=4,
    reg3d_interval=1,
    reg3d_sample_size=20,
)
GRADISEG = GradiSegParams(igd_from_iter=8, igd_until_iter=12, igd_interval=2, la_knn_from_iter=12)
SCHEDULE = Schedule(OPT, GRADISEG, RepairParams(repair_from_iter=8, boundary_interval=2), sh_interval=5)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs") / "scene"
    write_scene(folder)
    return folder


def training(scene_folder: Path, seed: int = 0, **options: Any) -> Training:
    """A training at its start."""
    seed_everything(seed)
    args = ModelParams(str(scene_folder), train_split=True, resolution=4, num_classes=CLASSES)
    args = replace(args, **options)
    return Training(args, SCHEDULE, Scene(args, GaussianModel(3)))


def bits(run: Training) -> dict[str, Any]:
    """Everything that a step depends on."""
    moments = run.classifier_optimizer.state_dict()["state"]
    flat = {f"{index} {name}": value for index, entry in moments.items() for name, value in entry.items()}
    labels = {f"labels {uid}": value for uid, value in run.labels.state_dict().items()}
    return rows(run.model) | dict(run.classifier.state_dict()) | flat | labels


@pytest.mark.parametrize("stop", [1, 4, 8, 11, 15])
def test_going_on_from_a_state_gives_the_bits_of_not_stopping(
    scene_folder: Path, tmp_path: Path, stop: int
) -> None:
    whole = training(scene_folder)
    for _ in range(stop):
        whole.step()
    np.random.standard_normal()  # leaves a cached second normal in NumPy's generator
    checkpoint.save(tmp_path / "state.pth", whole.state_dict())
    other = training(scene_folder, seed=9)
    other.load_state_dict(checkpoint.load(tmp_path / "state.pth"))
    ends = []
    for run in (other, whole):
        if run is whole:  # the generators are the process's
            whole.load_state_dict(checkpoint.load(tmp_path / "state.pth"))
        losses = [run.step().total.item() for _ in range(stop, 17)]
        drawn = [random.random(), np.random.standard_normal(), torch.rand(1).item()]
        ends.append((run.iteration, run.camera_order, losses, drawn, bits(run)))
    assert ends[0][:4] == ends[1][:4]
    assert ends[0][4].keys() == ends[1][4].keys()
    assert all(torch.equal(value, ends[1][4][name]) for name, value in ends[0][4].items())


def test_every_pass_shows_every_view_once(scene_folder: Path) -> None:
    run = training(scene_folder)
    shown = [run.next_camera().uid for _ in range(2 * len(run.cameras))]
    passes = shown[: len(run.cameras)], shown[len(run.cameras) :]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(camera.uid for camera in run.cameras)


def test_other_ids_are_refused_although_their_number_fits(scene_folder: Path) -> None:
    run = training(scene_folder)
    state = run.state_dict()
    ids = state["classifier"]["class_ids"].clone()
    ids[-1] += 1
    for _ in range(6):  # until every parameter has its moments
        run.step()
    before = rows(run.model)
    with pytest.raises(UserError, match="other ids"):
        run.load_state_dict(state | {"classifier": state["classifier"] | {"class_ids": ids}})
    assert run.iteration == 6
    assert all(torch.equal(value, before[name]) for name, value in rows(run.model).items())


def test_the_model_and_its_classifier_are_saved_where_the_folder_says(
    scene_folder: Path, tmp_path: Path
) -> None:
    run, folder = training(scene_folder), RunFolder(tmp_path)
    run.step()
    run.model.origin = np.array([4_500_000.0, 0.0, -7.0])  # of a scene in survey coordinates
    run.save_model(folder)
    assert folder.latest_saved() == 1
    state = torch.load(folder.classifier(1), weights_only=True)
    torch.nn.Conv2d(16, CLASSES, 1).load_state_dict(state)
    loaded = GaussianModel(3)
    loaded.origin = run.model.origin
    loaded.load_ply(folder.ply(1))
    assert torch.equal(loaded.get_xyz, run.model.get_xyz)


def test_a_model_counts_as_saved_once_it_is_complete(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = training(scene_folder), RunFolder(tmp_path)
    run.step()
    run.save_model(folder)
    run.step()
    for part in ("gradiseg.training.save_votes", "torch.save", "scene.GaussianModel.save_ply"):
        with monkeypatch.context() as patch:
            patch.setattr(part, interrupted)
            with pytest.raises(KeyboardInterrupt):
                run.save_model(folder)
        assert folder.latest_saved() == 1
    run.save_model(folder)
    assert folder.latest_saved() == 2


def interrupted(*arguments: object) -> None:
    """In the place of what a kill hits."""
    raise KeyboardInterrupt


def test_test_views_are_scored_and_a_few_shown(scene_folder: Path) -> None:
    scores, pictures = training(scene_folder).test()
    assert scores["psnr"] > 0 and set(pictures) == {"view.1", "view.4"}
    without_test_views = training(scene_folder, train_split=False)
    assert without_test_views.test() == ({}, {})


def test_early_iterations_train_at_lower_resolution(scene_folder: Path) -> None:
    run = training(scene_folder)
    opt = replace(OPT, quarter_resolution_until_iter=1, half_resolution_until_iter=2)
    run.schedule = replace(SCHEDULE, opt=opt)
    width, height = run.cameras[0].image_width, run.cameras[0].image_height
    for divisor in (4, 2, 1):
        run.step()
        camera, labels = run.next_view()
        assert (camera.image_width, camera.image_height) == (width // divisor, height // divisor)
        assert labels is not None and tuple(labels.shape) == (height // divisor, width // divisor)
        assert run.model.get_xyz.isfinite().all()


def test_a_saved_model_has_its_votes_and_the_training_goes_on_as_it_was(
    scene_folder: Path, tmp_path: Path
) -> None:
    run = training(scene_folder)
    for _ in range(6):
        run.step()
    before = bits(run)
    run.save_model(folder := RunFolder(tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in bits(run).items())
    saved = GaussianModel(3)
    saved.load_ply(folder.ply(6))
    votes = load_votes(folder.votes(6), saved)
    assert votes is not None and torch.equal(votes.ids, run.votes().ids)
    assert torch.equal(saved.get_objects, run.model.get_objects.detach())


def test_a_training_without_gaussians_says_so(scene_folder: Path) -> None:
    run = training(scene_folder)
    run.step()
    keep(run.model, torch.zeros(run.model.num_gaussians, dtype=torch.bool))
    with pytest.raises(UserError, match="no Gaussians are left after iteration 1"):
        run.step()
