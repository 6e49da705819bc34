"""Predicting and scoring masks, with stub renders."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gradiseg.evaluation.masks import (
    RULES,
    TruthMask,
    apply_rules,
    ids_from_model,
    list_truth,
    predict_masks,
    read_mask,
    read_prediction,
    score_masks,
    write_mask,
    write_predictions,
)
from gradiseg.evaluation.metrics import BoolArray, score_mask
from scene.cameras import Camera
from utils.errors import UserError

HEIGHT, WIDTH = 12, 16


def make_camera(view: int) -> Camera:
    """A camera of the ground truth's size; its `uid` says which view it is."""
    return Camera(
        view, f"view.{view}", WIDTH, HEIGHT, 15.0, 15.0, WIDTH / 2, HEIGHT / 2, np.eye(3), np.zeros(3)
    )


def one_hot_classifier(classes: int = 5) -> nn.Conv2d:
    """Class c's logit is channel c."""
    classifier = nn.Conv2d(16, classes, 1)
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.weight[:, :, 0, 0] = torch.eye(classes, 16)
        assert classifier.bias is not None
        classifier.bias.zero_()
    return classifier


def features_of(ids: Tensor) -> Tensor:
    """Identity map (16, H, W) that the classifier above reads as these ids."""
    return 10.0 * nn.functional.one_hot(ids, 16).permute(2, 0, 1).float()


def id_map(view: int) -> Tensor:
    """Two objects, 1 and 2, that move with the view."""
    ids = torch.zeros(HEIGHT, WIDTH, dtype=torch.long)
    ids[2:8, 1 + view : 6 + view] = 1
    ids[5:10, 8:14] = 2
    return ids


def write_truth(folder: Path, names: list[str]) -> list[TruthMask]:
    """Exact masks of `id_map` in every view."""
    for view, name in enumerate(names):
        for prompt, identity in (("red mug", 1), ("st. bernard", 2)):
            write_mask(folder / name / f"{prompt}.png", (id_map(view) == identity).numpy())
    return list_truth(folder, names)


def render_identity(camera: Camera) -> Tensor:
    """Identity map of a view."""
    return features_of(id_map(camera.uid))


def test_rules_nest_and_agree_with_their_definition() -> None:
    torch.manual_seed(1)
    classifier, features = nn.Conv2d(16, 5, 1), 4 * torch.randn(16, HEIGHT, WIDTH)
    masks = apply_rules(features, classifier, {"a": [1, 3], "nothing": []})
    softmax = classifier(features[None])[0].softmax(0)
    best = softmax[[1, 3]].amax(0)
    assert np.array_equal(masks["softmax>0.2"]["a"], (best > 0.2).numpy())
    assert np.array_equal(masks["argmax"]["a"], (best == softmax.amax(0)).numpy())
    assert not (masks["softmax>0.5"]["a"] & ~masks["argmax"]["a"]).any()
    assert not (
        masks["argmax"]["a"] & ~masks["softmax>0.2"]["a"]
    ).any()  # of 5 classes the winner has over 0.2
    assert not any(masks[rule]["nothing"].any() for rule in RULES)
    assert not any(
        apply_rules(features, classifier, {"nothing": []})[rule]["nothing"].any() for rule in RULES
    )


@pytest.mark.parametrize("names", [["0", "1"], ["view.0", "view.1"]])
def test_exact_identities_score_one_by_every_rule(tmp_path: Path, names: list[str]) -> None:
    truth = write_truth(tmp_path / "test_mask", names)
    cameras = [make_camera(0), make_camera(1)]
    ids = ids_from_model(cameras, truth, render_identity, one_hot_classifier())
    assert ids == {"red mug": [1], "st. bernard": [2]}
    predictions = predict_masks(cameras, truth, render_identity, one_hot_classifier(), ids)
    for rule in RULES:
        write_predictions(tmp_path / rule, predictions[rule])
        record = score_masks(truth, lambda mask, rule=rule: read_prediction(tmp_path / rule, mask))  # type: ignore[misc]
        assert record["miou"] == record["mbiou"] == record["mbiou_strict"] == 1.0
        assert record["missing"] == [] and record["per_prompt"]["st. bernard"]["views"] == 2


def test_a_missing_prediction_counts_zero_and_is_listed(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "test_mask", ["0", "1"])
    write_predictions(tmp_path / "pred", {(m.view, m.prompt): read_mask(m.path) for m in truth[1:]})
    record = score_masks(truth, lambda mask: read_prediction(tmp_path / "pred", mask))
    assert record["missing"] == ["0/red mug"]
    row = {"iou": 0.5, "biou": 0.5, "biou_strict": 0.5, "band_error": 0.5, "views": 2}
    assert record["per_prompt"]["red mug"] == row
    assert record["miou"] == 0.75


def test_prompts_weigh_the_same_however_many_views_show_them(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "test_mask", ["0", "1", "2"])
    truth = [mask for mask in truth if mask.prompt == "red mug" or mask.view == 0]
    shifted = {(m.view, m.prompt): np.roll(read_mask(m.path), 2, 1) for m in truth}
    record = score_masks(truth, lambda mask: shifted[mask.view, mask.prompt])
    by_prompt: dict[str, list[float]] = {}
    for mask in truth:
        by_prompt.setdefault(mask.prompt, []).append(
            score_mask(shifted[mask.view, mask.prompt], read_mask(mask.path)).biou
        )
    assert record["mbiou"] == pytest.approx(np.mean([np.mean(scores) for scores in by_prompt.values()]))


def test_a_prediction_of_another_size_is_aligned_by_pixel_centres(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "test_mask", ["0"])
    doubled = {m.prompt: np.repeat(np.repeat(read_mask(m.path), 2, 0), 2, 1) for m in truth}
    assert score_masks(truth, lambda mask: doubled[mask.prompt])["miou"] == 1.0


def test_the_threshold_is_128(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 127, 128, 129, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[False, False, False, True, True]]


@pytest.mark.parametrize("mask", [np.zeros((3, 5), bool), np.eye(4, dtype=bool)])
def test_masks_survive_their_file(tmp_path: Path, mask: BoolArray) -> None:
    write_mask(tmp_path / "0" / "a b.png", mask)
    assert np.array_equal(read_mask(tmp_path / "0" / "a b.png"), mask)


def test_numbers_count_views_in_name_order_unless_all_are_names(tmp_path: Path) -> None:
    write_truth(tmp_path, ["0", "1", "10"])
    eleven = [f"frame_{index:02d}" for index in range(11)]
    assert [mask.view for mask in list_truth(tmp_path, eleven)] == [0, 0, 1, 1, 10, 10]
    assert [mask.view for mask in list_truth(tmp_path, ["0", "1", "10", "2"])] == [0, 0, 1, 1, 2, 2]
    assert [mask.view for mask in list_truth(tmp_path)] == [0, 0, 1, 1, 10, 10]
    in_folder = [f"test/{name}" for name in ("0", "1", "10", "2")]
    assert [mask.view for mask in list_truth(tmp_path, in_folder)] == [0, 0, 1, 1, 2, 2]


def test_folders_that_are_no_view_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test_mask"):
        list_truth(tmp_path / "test_mask", ["a"])
    write_truth(tmp_path, ["0", "1"])
    with pytest.raises(UserError, match="train_split"):
        list_truth(tmp_path, ["a"])


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg"])
def test_true_masks_may_be_jpegs_as_in_gaussian_grouping(tmp_path: Path, suffix: str) -> None:
    expected = [read_mask(mask.path) for mask in write_truth(tmp_path, ["0", "1"])]
    for path in tmp_path.glob("*/*.png"):
        Image.fromarray(read_mask(path).astype(np.uint8) * 255).save(path.with_suffix(suffix), format="JPEG")
    with pytest.raises(UserError, match=r"a second mask of 0/red mug lies beside it"):
        list_truth(tmp_path)
    for path in tmp_path.glob("*/*.png"):
        path.unlink()
    truth = list_truth(tmp_path)
    assert [mask.prompt for mask in truth] == ["red mug", "st. bernard"] * 2
    for mask, pixels in zip(truth, expected, strict=True):
        assert np.array_equal(read_mask(mask.path), pixels)


def test_masks_of_one_view_that_differ_in_size_are_refused(tmp_path: Path) -> None:
    for prompt, width in {"mug": 8, "plate": 9}.items():
        write_mask(tmp_path / "0" / f"{prompt}.png", np.ones((6, width), bool))
    with pytest.raises(UserError, match=r"plate\.png: 9x6 pixels, but 0/mug of the same view has 8x6"):
        list_truth(tmp_path)


def test_an_id_the_classifier_lacks_is_refused(tmp_path: Path) -> None:
    truth = write_truth(tmp_path, ["0"])
    with pytest.raises(UserError, match=r"red mug.*id 5"):
        predict_masks([], truth, render_identity, one_hot_classifier(), {"red mug": [5]})
