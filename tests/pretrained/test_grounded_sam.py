"""Grounding DINO and SAM: the real model code on tiny random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pretrained.grounded_sam import GroundedSam
from tests.tiny_models import write_detector, write_segmenter
from utils.errors import UserError

pytest.importorskip("transformers")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of the two models."""
    root = tmp_path_factory.mktemp("models")
    write_detector(root / "detector")
    write_segmenter(root / "segmenter")
    return str(root / "detector"), str(root / "segmenter")


@pytest.fixture(scope="module")
def models(folders: tuple[str, str]) -> GroundedSam:
    """Both models; the threshold lets every box through."""
    return GroundedSam(*folders, 0.0, CPU)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A picture that is wider than high."""
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def test_boxes_are_pixels_and_fewer_above_a_higher_threshold(
    models: GroundedSam, picture: np.ndarray
) -> None:
    boxes = models.find_boxes(picture, "a red cup")
    assert boxes.shape == (10, 4)  # all queries
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert ((centres >= 0) & (centres <= torch.tensor([90, 60]))).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) <= torch.tensor([90, 60])).all()
    models.box_threshold = 1.0
    assert len(models.find_boxes(picture, "a red cup")) == 0
    models.box_threshold = 0.0


def test_case_and_full_stop_do_not_matter_but_words_do(models: GroundedSam, picture: np.ndarray) -> None:
    boxes = models.find_boxes(picture, "red cup")
    assert torch.equal(models.find_boxes(picture, " Red CUP. "), boxes)
    assert not torch.equal(models.find_boxes(picture, "green bowl"), boxes)


def test_a_mark_is_the_union_of_its_boxes_masks(models: GroundedSam, picture: np.ndarray) -> None:
    boxes = torch.tensor([[5.0, 5, 40, 40], [50, 10, 88, 55]])
    union = models.segment(picture, {"cup": boxes})["cup"]
    single = [models.segment(picture, {"cup": box[None]})["cup"] for box in boxes]
    assert union.shape == picture.shape[:2] and union.dtype == np.bool_
    assert np.array_equal(union, single[0] | single[1])


def test_the_picture_encoded_once_gives_what_sams_own_call_gives(
    models: GroundedSam, picture: np.ndarray
) -> None:
    boxes = {"cup": torch.tensor([[5.0, 5, 40, 40]]), "bowl": torch.tensor([[50.0, 10, 88, 55]])}
    marks = models.segment(picture, boxes)
    for prompt, found in boxes.items():
        inputs = models.segmenter_inputs(picture, input_boxes=[found.tolist()], return_tensors="pt")
        with torch.no_grad():
            output = models.segmenter(
                pixel_values=inputs["pixel_values"],
                input_boxes=inputs["input_boxes"].float(),
                multimask_output=False,
            )
        expected = models.segmenter_inputs.post_process_masks(
            output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0]
        assert np.array_equal(marks[prompt], expected[0, 0].numpy())


def test_nothing_found_is_an_empty_mark_and_sam_is_not_asked(
    models: GroundedSam, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "box_threshold", 1.0)
    monkeypatch.setattr(models, "segmenter", None)
    marks = models.mark(picture, ["red cup", "green bowl"])
    assert list(marks) == ["red cup", "green bowl"]
    assert all(mark.shape == (60, 90) and not mark.any() for mark in marks.values())


def test_missing_weights_say_what_to_fetch_and_where_to_put_it(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"hf download IDEA-Research/.* --detector models/grounding-dino-base"
    ):
        GroundedSam(str(tmp_path / "empty"), folders[1], 0.3, CPU)
    with pytest.raises(UserError, match=r"hf download facebook/sam-.* --segmenter models/sam-vit-huge"):
        GroundedSam(folders[0], str(tmp_path / "nothing"), 0.3, CPU)
