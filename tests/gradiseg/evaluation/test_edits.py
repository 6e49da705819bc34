"""True edits: a perfect model of a scene scores perfectly, and what an edit leaves behind is counted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gradiseg.editing.operations import Recolour, Remove, Surroundings
from gradiseg.evaluation.edits import (
    draw,
    list_edits,
    markdown,
    masked_psnr,
    mean_score,
    reach_of,
    score_edit,
    score_ids,
)
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera
from scene.masks import write_id_map
from scripts.eval_edits import chosen_edits
from tests.labelled_scene import camera, labelled_scene
from utils.errors import UserError
from utils.image import save_png

pytestmark = pytest.mark.usefixtures("one_thread")
BLACK = torch.zeros(3)
CAMERAS: list[Camera] = [camera(0), camera(2)]


def write_truth(scene: Path, before: LabelledModel, after: LabelledModel) -> None:
    """A scene that looks exactly as the models do."""
    folder = scene / "edits" / "remove mug"
    for view in CAMERAS:
        for root, model in ((scene, before), (folder, after)):
            picture, ids = draw(model, view, BLACK)
            save_png(root / "images" / f"{view.image_name}.png", picture)
            name = "object_mask_exact" if root == scene else "ids"
            write_id_map(root / name / f"{view.image_name}.png", ids.astype(np.uint16))
            if root == folder:
                save_png(root / "images_lit_as_before" / f"{view.image_name}.png", picture)
    (folder / "edit.json").write_text(json.dumps({"operation": "remove", "id": 2, "prompt": "mug"}))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene from which the mug was taken away."""
    model = labelled_scene()
    write_truth(tmp_path, model, Remove(select=2).apply(model, Surroundings({})))
    return tmp_path


def test_a_perfect_model_scores_perfectly(scene: Path) -> None:
    (edit,) = list_edits(scene)
    model = labelled_scene()
    score = score_edit(edit, scene, model, edit.operation.apply(model, Surroundings({})), CAMERAS, BLACK)
    assert score.miou == score.mbiou_strict == score.miou_before == 1.0 and score.pixels_left == 0
    assert min(score.psnr_inside or 0, score.psnr_outside or 0, score.psnr_outside_lit or 0) > 50
    assert markdown({"a": score, "b": score}).count("1.000") == 18
    assert mean_score([score, replace(score, psnr_inside_lit=None)]).psnr_inside_lit == score.psnr_inside_lit


def test_an_edit_that_did_nothing_is_seen(scene: Path) -> None:
    (edit,) = list_edits(scene)
    model = labelled_scene()
    score = score_edit(edit, scene, model, model, CAMERAS, BLACK)
    assert (score.pixels_left or 0) > 50 and (score.psnr_inside or 99) < 30 < (score.psnr_outside or 0)


def test_lpips_sees_the_region_alone(scene: Path) -> None:
    (edit,) = list_edits(scene)
    model = labelled_scene()

    def differing(image: torch.Tensor, target: torch.Tensor) -> float:
        return float((image != target).any(0).float().mean())

    white = torch.ones(3)  # which the truth has nowhere
    score = score_edit(edit, scene, model, model, CAMERAS, white, differing)
    assert 0.02 < (score.lpips_inside or 0) < 0.5


def test_other_sizes_are_drawn_at_the_truths(scene: Path) -> None:
    (edit,) = list_edits(scene)
    model = labelled_scene()
    after = edit.operation.apply(model, Surroundings({}))
    half = [view.at_resolution(view.image_width // 2, view.image_height // 2) for view in CAMERAS]
    assert score_edit(edit, scene, model, after, half, BLACK).miou == 1.0


def test_without_edits_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder with an edit"):
        list_edits(tmp_path)


def test_edits_are_chosen_by_name(scene: Path) -> None:
    (edit,) = list_edits(scene)
    assert chosen_edits(scene, "") == chosen_edits(scene, " remove mug") == [edit]
    with pytest.raises(UserError, match="'mug' is none of remove mug"):
        chosen_edits(scene, "remove mug,mug")


def test_colours_change_inside_of_the_mask_alone() -> None:
    model, cameras = labelled_scene(), [camera(index) for index in range(6)]
    painted = Recolour(select=3, hue=120).apply(model, Surroundings({}))
    reach = reach_of(model, painted, model.ids == 3, cameras, BLACK)
    assert reach is not None and reach.inside > 0.05 and reach.outside_most < 1e-3
    astray = Recolour(select=[3, 4], hue=120).apply(model, Surroundings({}))
    reach = reach_of(model, astray, model.ids == 3, cameras, BLACK)
    assert reach is not None and reach.outside > 5e-3
    assert reach_of(model, painted, torch.zeros_like(model.ids, dtype=torch.bool), cameras, BLACK) is None


def test_the_region_alone_counts() -> None:
    image, target = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    target[:, 0] = 0.1
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    assert masked_psnr(image, target, mask) == pytest.approx(20.0, abs=1e-3)
    assert (masked_psnr(image, target, ~mask) or 0) > 100
    assert masked_psnr(image, target, np.zeros((4, 4), bool)) is None


def test_a_view_that_shows_no_object_has_no_scores_and_does_not_count() -> None:
    none = score_ids(np.ones((4, 6), int), np.zeros((4, 6), int))
    assert none == {"miou": None, "mbiou": None, "mbiou_strict": None}
    assert score_ids(np.ones((4, 6), int), np.ones((4, 6), int))["miou"] == 1
