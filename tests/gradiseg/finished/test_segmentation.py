"""The votes of a finished splat, where masks catch an object in part."""

from pathlib import Path

import numpy as np
import pytest
import torch

from arguments import ModelParams
from gradiseg.finished.segmentation import Segmentation
from scene import Scene
from scene.masks import read_id_map, write_id_map
from tests.disc_scene import CLASSES, DISCS, disc_model, write_scene

pytestmark = pytest.mark.usefixtures("one_thread")

RED, BLUE = DISCS["red disc"].identity, DISCS["blue disc"].identity


def segmentation_of(folder: Path) -> Segmentation:
    """The discs' splat before any Gaussian has moved."""
    args = ModelParams(str(folder), train_split=True, num_classes=CLASSES)
    scene = Scene(args, None)
    parts = (scene.class_ids, CLASSES, torch.zeros(3), scene.cameras_extent)
    return Segmentation(disc_model(), scene.getTrainCameras(), *parts)


def owned(segmentation: Segmentation, identity: int) -> float:
    """Share of a disc's Gaussians that have its id."""
    own = disc_model().get_objects[:, 0].argmax(1) == identity
    return float((segmentation.votes.ids[own] == identity).float().mean())


def test_an_object_that_masks_catch_in_part_gets_its_votes_back(tmp_path: Path) -> None:
    """Of every second pixel of the blue disc the masks say red."""
    write_scene(tmp_path)
    random = np.random.default_rng(0)
    for path in sorted((tmp_path / "object_mask").iterdir()):
        ids = read_id_map(path)
        write_id_map(path, np.where((ids == BLUE) & (random.random(ids.shape) < 0.5), RED, ids))
    segmentation = segmentation_of(tmp_path)
    before = owned(segmentation, BLUE)
    segmentation.weigh_labels()
    assert before < 0.6 and owned(segmentation, BLUE) > before + 0.1
    labels, weights = segmentation.classifier.class_ids, segmentation.weights
    rows = segmentation.classifier.weight[:, :-1].norm(dim=1)  # pixels count as much as votes
    assert weights[labels == BLUE] > 1.2
    sufficient = segmentation.boundary.sufficient
    assert sufficient is not None and sufficient[labels == BLUE] < 0.5  # its pixels need no majority
    assert (sufficient <= 1).all()  # not even those of id 0, whose votes count less
    torch.testing.assert_close(*(of[labels == BLUE] / of[labels == RED] for of in (rows, weights)))
    assert owned(segmentation, RED) > 0.99


def test_a_label_without_support_does_not_count_more(tmp_path: Path) -> None:
    """A tracker that gave the red disc another id in one view of four, and the blue one its own in all."""
    write_scene(tmp_path)
    path = tmp_path / "object_mask" / "view.0.png"
    ids = read_id_map(path)
    write_id_map(path, np.where(ids == RED, 6, ids))
    segmentation = segmentation_of(tmp_path)
    segmentation.weigh_labels()
    assert float(segmentation.weights[segmentation.classifier.class_ids == 6]) == 1.0
    assert owned(segmentation, RED) > 0.99 and owned(segmentation, BLUE) > 0.95
