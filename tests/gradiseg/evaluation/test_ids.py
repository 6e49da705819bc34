"""Assigning ids to prompts: pooled IoU against brute force, and the files it reads."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradiseg.evaluation.ids import Overlap, best_ids, ids_from_training_masks, read_ids
from utils.errors import UserError


def random_views(seed: int, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """Id maps (H, W) and true masks (H, W)."""
    generator = np.random.default_rng(seed)
    return [(generator.integers(0, 6, (7, 9)), generator.random((7, 9)) < 0.4) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_pooled_iou_equals_the_iou_of_all_views_side_by_side(seed: int) -> None:
    views = random_views(seed)
    overlap = Overlap()
    for ids, truth in views:
        overlap.add(ids, truth)
    ids = np.hstack([view[0] for view in views])
    truth = np.hstack([view[1] for view in views])
    expected = {i: np.sum((ids == i) & truth) / np.sum((ids == i) | truth) for i in range(6)}
    assert all(overlap.iou(i) == pytest.approx(expected[i]) for i in range(6))
    assert overlap.best() == max(range(1, 6), key=lambda i: expected[i])


def test_unlabelled_is_never_an_objects_id() -> None:
    overlap = Overlap()
    overlap.add(np.zeros((3, 3), int), np.ones((3, 3), bool))
    assert overlap.best() is None
    assert best_ids({"ghost": overlap}) == {"ghost": []}


def write_map(path: Path, ids: np.ndarray) -> None:
    """An id map as an 8-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


def test_a_permutation_of_noisy_training_ids_is_undone(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    exact = [np.repeat(np.repeat(generator.integers(0, 5, (4, 6)), 8, 0), 8, 1) for _ in range(3)]
    permutation = np.array([0, 3, 1, 4, 2])
    for index, ids in enumerate(exact):
        noisy = permutation[ids]
        noisy[generator.random(noisy.shape) < 0.2] = 0  # holes
        write_map(tmp_path / "exact" / f"v.{index}.png", ids)
        write_map(tmp_path / "noisy" / f"v.{index}.png", noisy)
    truth = {f"object {i}": [i] for i in range(1, 5)} | {"absent": [77]}
    names = ["v.0", "v.1", "v.2", "without files"]
    found = ids_from_training_masks(tmp_path / "noisy", tmp_path / "exact", truth, names)
    assert found == {f"object {i}": [int(permutation[i])] for i in range(1, 5)} | {"absent": []}


@pytest.mark.parametrize("wrapper", [None, "ids", "prompts"])
def test_ids_are_read_alone_or_under_a_key(tmp_path: Path, wrapper: str | None) -> None:
    table: dict[str, object] = {"red mug": 2, "duck": [1, 5]}
    path = tmp_path / "ids.json"
    path.write_text(json.dumps({wrapper: table, "test_views": []} if wrapper else table))
    assert read_ids(path) == {"red mug": [2], "duck": [1, 5]}


@pytest.mark.parametrize("text", ["[1]", '{"duck": "one"}', '{"duck": [true]}', '{"duck": -1}', "{"])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ids.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"ids\.json"):
        read_ids(path)
