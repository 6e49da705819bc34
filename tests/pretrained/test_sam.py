"""SAM, SAM 2 and its video memory: the rules around the models, and the real code on tiny random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from preparation import video_masks
from preparation.segment_folder import SegmentFolder
from preparation.video_masks import match, track_objects
from pretrained import sam
from pretrained.sam import automatic_masks, distinct, load_sam, model_input, paint, segment_prompted
from scene.masks import read_id_map
from scene.views import CameraInfo
from tests.tiny_models import SAM_EDGE, write_segmenter, write_tracker
from utils.errors import UserError

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of both models."""
    root = tmp_path_factory.mktemp("weights")
    write_segmenter(root / "sam")
    write_tracker(root / "sam2")
    return {kind: str(root / kind) for kind in ("sam", "sam2")}


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A picture that is wider than high."""
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few prompts, all of whose answers pass: random weights give no good masks."""
    monkeypatch.setattr(sam, "GRID", 3)
    monkeypatch.setattr(sam, "MIN_SCORE", {"sam": -9.0, "sam2": -9.0})
    monkeypatch.setattr(sam, "MIN_STABILITY", -1.0)


def test_pictures_are_prepared_as_sam_s_own_processor_does(picture: np.ndarray) -> None:
    processor = transformers.SamImageProcessorPil(
        size={"longest_edge": SAM_EDGE}, pad_size={"height": SAM_EDGE, "width": SAM_EDGE}
    )
    expected = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    ours = model_input(picture, SAM_EDGE, (round(60 * SAM_EDGE / 90), SAM_EDGE))
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() < 3 / 255 / 0.22  # it rounds to whole grey levels twice


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_prompts_reach_the_model_as_by_hand(kind: str, weights: dict[str, str], picture: np.ndarray) -> None:
    model = load_sam(kind, weights[kind], CPU)
    shares = np.array([[0.1, 0.2], [0.7, 0.9]])
    ((logits, scores),) = model.answers(picture, shares)
    height, width = model.extent(picture)
    with torch.no_grad():
        answer = model.model(
            pixel_values=model_input(picture, model.size, (height, width)),
            input_points=torch.tensor([[[[x * width, y * height]] for x, y in shares]]).float(),
            input_labels=torch.ones(1, 2, 1, dtype=torch.int),
            multimask_output=True,
        )
    torch.testing.assert_close(scores, answer.iou_scores.flatten())
    expected = answer.pred_masks[0].flatten(0, 1)
    torch.testing.assert_close(logits, expected[:, : logits.shape[1], : logits.shape[2]])
    proportion = logits.shape[2] / logits.shape[1]
    assert proportion == pytest.approx(1.5 if kind == "sam" else 1.0, rel=0.05)


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_one_click_gives_the_best_of_its_answers(
    kind: str, weights: dict[str, str], picture: np.ndarray
) -> None:
    model = load_sam(kind, weights[kind], CPU)
    point = np.array([[63.0, 54.0]])
    ((logits, scores),) = model.answers(picture, point / (90, 60))
    best = logits[scores.argmax()][None, None]
    expected = torch.nn.functional.interpolate(best, (60, 90), mode="bilinear")[0, 0] > 0
    mask = segment_prompted(model, picture, point, np.ones(1, bool))
    np.testing.assert_array_equal(mask, expected.numpy())


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_the_model_hears_which_clicks_are_on_the_object(
    kind: str, weights: dict[str, str], picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, heard = load_sam(kind, weights[kind], CPU), []
    forward = model.model.forward

    def listening(*args: Any, **inputs: Any) -> Any:
        heard.append(inputs["input_labels"].tolist())
        return forward(*args, **inputs)

    monkeypatch.setattr(model.model, "forward", listening)
    points = np.array([[63.0, 54.0], [5.0, 5.0]])
    mask = segment_prompted(model, picture, points, np.array([True, False]))
    assert heard == [[[[1, 0]]]] and mask.shape == (60, 90)


@pytest.mark.parametrize("kind", ["sam", "sam2"])
@pytest.mark.usefixtures("lenient")
def test_automatic_masks_are_distinct_and_sorted(
    kind: str, weights: dict[str, str], picture: np.ndarray
) -> None:
    masks = automatic_masks(load_sam(kind, weights[kind], CPU), picture)
    areas = masks.sum(axis=(1, 2))
    assert masks.shape[1:] == picture.shape[:2] and 1 <= len(masks) <= 27
    assert (np.diff(areas) <= 0).all()


def test_bad_answers_give_no_masks(weights: dict[str, str], picture: np.ndarray) -> None:
    assert automatic_masks(load_sam("sam", weights["sam"], CPU), picture).shape == (0, 60, 90)


def test_of_two_that_overlap_the_better_stays() -> None:
    masks = torch.zeros(4, 20, 20, dtype=torch.bool)
    masks[0, :10], masks[1, :10, 2:], masks[2, 10:], masks[3, :4] = True, True, True, True
    kept = distinct(masks, torch.tensor([0.8, 0.9, 0.7, 0.5]))
    assert kept.tolist() == [1, 2, 3]
    assert distinct(masks[:0], torch.empty(0)).tolist() == []


def test_small_masks_lie_on_large_ones() -> None:
    masks = np.zeros((2, 6, 6), bool)
    masks[0, 2:4, 2:4], masks[1, 1:5, 1:5] = True, True
    canvas = paint(masks, [7, 3], (6, 6))
    assert (canvas == 7).sum() == 4 and (canvas == 3).sum() == 12 and (canvas == 0).sum() == 20


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_missing_weights_say_what_to_fetch(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"hf download {sam.HUB[kind]}"):
        load_sam(kind, str(tmp_path / "absent"), CPU)


def box(rows: slice, columns: slice) -> np.ndarray:
    """A mask (20,20) of a rectangle."""
    mask = np.zeros((20, 20), bool)
    mask[rows, columns] = True
    return mask


def test_key_frames_update_objects_and_find_new_ones() -> None:
    tracked = {4: box(slice(0, 10), slice(0, 10)), 6: box(slice(10, 20), slice(0, 10))}
    moved = box(slice(0, 10), slice(1, 11))  # IoU 0.82 with object 4
    inner = box(slice(12, 15), slice(2, 5))  # covered by object 6
    new = box(slice(0, 20), slice(14, 20))
    result = match(tracked, [new, moved, inner], next_id=9)
    assert set(result) == {4, 6, 9}
    for identity, mask in ((4, moved), (6, tracked[6]), (9, new)):
        np.testing.assert_array_equal(result[identity], mask)
    assert list(match({}, [new, moved], next_id=1)) == [1, 2]
    assert match({}, [], next_id=1) == {}


@pytest.fixture
def views(tmp_path: Path) -> list[CameraInfo]:
    """Six photographs."""
    generator = np.random.default_rng(0)
    found = []
    for k in range(6):
        path = tmp_path / "images" / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (60, 90, 3), np.uint8)).save(path)
        found.append(CameraInfo(str(k), path, None, np.eye(3), np.zeros(3), 90, 60, 50.0, 50.0, 45.0, 30.0))
    return found


def test_tracking_keeps_ids_and_resumes(
    weights: dict[str, str], views: list[CameraInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def planted(model: object, image: np.ndarray) -> np.ndarray:
        """An object at the left in every key frame; one at the right in the second alone."""
        calls.append(1)
        masks = np.zeros((2, *image.shape[:2]), bool)
        masks[0, :, :40] = True
        masks[1, 10:50, 60:] = len(calls) % 4 == 2
        return masks[: 1 + int(masks[1].any())]

    monkeypatch.setattr(video_masks, "automatic_masks", planted)
    folder = SegmentFolder(tmp_path / "segments", {"kind": "test"}, views)
    paths = track_objects(folder, views, weights["sam2"], 2, CPU)
    assert list(paths) == [view.image_name for view in views]
    assert len(calls) == 4  # key frames 0, 2, 4 and the last
    first = {name: read_id_map(path) for name, path in paths.items()}
    assert set(np.unique(first["0"])) == {0, 1} and (first["0"][:, :40] == 1).all()
    assert all(ids.shape == (60, 90) for ids in first.values())

    for name in ("4", "5"):
        paths[name].unlink()
    calls[:] = [1, 1]  # as far as the earlier call had come with view 2
    track_objects(folder, views, weights["sam2"], 2, CPU)
    for name, path in paths.items():
        np.testing.assert_array_equal(read_id_map(path), first[name])
    calls.clear()
    track_objects(folder, views, "nothing to load", 2, CPU)
    assert not calls
