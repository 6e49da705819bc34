"""Alignment end to end: silhouettes that follow from a formula against those that a loaded run renders."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from arguments import DeviceParams, ModelParams, parse_with_run
from gradiseg.evaluation.masks import DEFAULT_RULE, list_truth, predict_masks, read_mask
from gradiseg.evaluation.metrics import mask_iou
from gradiseg.trained import load_run
from scene.masks import read_id_map, write_id_map
from tests.disc_scene import (
    CLASSES,
    DISCS,
    HEIGHT,
    ITERATION,
    TEST_VIEWS,
    WIDTH,
    projected_centre,
    write_run,
    write_scene,
)
from utils.errors import UserError


def centroid(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean pixel centre (x, y) of a picture (H, W)."""
    rows, columns = np.indices(weights.shape) + 0.5
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene of two discs."""
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder)
    return folder


@pytest.mark.parametrize("resolution", [1, 2, 70])
def test_predicted_masks_lie_on_the_silhouettes_whatever_the_training_resolution(
    scene: Path, tmp_path: Path, resolution: int
) -> None:
    write_run(tmp_path / "run", scene, resolution)
    (model, pipeline) = parse_with_run((ModelParams, DeviceParams), ["-m", str(tmp_path / "run")])
    run = load_run(model, pipeline)
    truth = list_truth(scene / "test_mask", [camera.image_name for camera in run.test_cameras])
    ids = {prompt: [disc.identity] for prompt, disc in DISCS.items()}
    masks = predict_masks(run.test_cameras, truth, run.render_identity, run.classifier, ids)[DEFAULT_RULE]
    assert len(masks) == len(TEST_VIEWS) * len(DISCS)
    offsets = []
    for mask in truth:
        predicted, expected = masks[mask.view, mask.prompt], read_mask(mask.path)
        assert mask_iou(predicted, expected) > (0.9 if resolution == 1 else 0.75)  # a soft edge of 2 pixels
        offsets.append(centroid(predicted.astype(float)) - centroid(expected.astype(float)))
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.1  # one mask's own pixels round by as much


@pytest.mark.parametrize("scale", [0.5, 1, 2, 3])
def test_coverage_is_centred_on_the_projection_at_any_rendering_size(
    scene: Path, tmp_path: Path, scale: float
) -> None:
    write_run(tmp_path / "run", scene)
    (model, pipeline) = parse_with_run((ModelParams, DeviceParams), ["-m", str(tmp_path / "run")])
    run = load_run(model, pipeline)
    for camera in run.test_cameras:
        view = camera.at_resolution(round(scale * WIDTH), round(scale * HEIGHT))
        features = run.render_identity(view).double().numpy()
        for disc in DISCS.values():
            expected = scale * np.array(projected_centre(disc, camera.image_name))
            assert np.abs(centroid(features[disc.identity]) - expected).max() < 0.1


def test_masks_that_are_newer_than_the_run_are_told(tmp_path: Path) -> None:
    write_scene(scene := tmp_path / "scene")
    write_run(tmp_path / "run", scene, 1)
    path = next((scene / "object_mask").glob("*.png"))
    write_id_map(path, read_id_map(path) + CLASSES)
    (model, pipeline) = parse_with_run((ModelParams, DeviceParams), ["-m", str(tmp_path / "run")])
    with pytest.raises(UserError, match=f"{path.name}: holds id .* the masks are newer than it"):
        load_run(model, pipeline)


def test_the_latest_iteration_is_loaded_and_a_missing_one_is_named(scene: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run", scene)
    (model, pipeline) = parse_with_run((ModelParams, DeviceParams), ["-m", str(tmp_path / "run")])
    run = load_run(model, pipeline)
    assert run.iteration == ITERATION
    assert [camera.image_name for camera in run.test_cameras] == list(TEST_VIEWS)
    with pytest.raises(UserError, match="iteration_7"):
        load_run(model, pipeline, 7)
