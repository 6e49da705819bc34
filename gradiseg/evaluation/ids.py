"""Which identity each prompt stands for: read from a file, or by best IoU ("oracle assignment").

Naming contract: an assignment is `dict[prompt, list of ids]`; an id map is an integer array (H, W) where 0
means unlabelled, so 0 is never assigned. IoU is pooled: the sum of the intersections over the views divided
by the sum of the unions, so that a view in which the object is a few pixels does not weigh as much as one
that it fills.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiseg.evaluation.metrics import BoolArray
from scene.masks import read_id_map, resize_id_map
from utils.errors import UserError
from utils.json_files import read_json

Assignment = dict[str, list[int]]

SOURCE_TRAINING = "oracle: best pooled IoU of the training ids with the exact masks of the training views"
SOURCE_TEST = "oracle: best pooled IoU of the model's argmax ids with the ground truth of the test views"


@dataclass
class Overlap:
    """Pixels that a true mask shares with every id, summed over views."""

    inside: Counter[int] = field(default_factory=Counter)
    total: Counter[int] = field(default_factory=Counter)
    truth_pixels: int = 0

    def add(self, ids: NDArray[Any], truth: BoolArray) -> None:
        """Counts one view: its id map (H, W) and the true mask (H, W)."""
        self.inside.update(id_counts(ids[truth]))
        self.total.update(id_counts(ids))
        self.truth_pixels += int(np.count_nonzero(truth))

    def iou(self, identity: int) -> float:
        """Pooled IoU of the true mask with one id."""
        shared = self.inside[identity]
        union = self.truth_pixels + self.total[identity] - shared
        return shared / union if union else 0.0

    def best(self) -> int | None:
        """The id other than 0 with the best pooled IoU (ties: the smallest), None where none overlaps."""
        candidates = [identity for identity in self.inside if identity != 0]
        return max(candidates, key=lambda identity: (self.iou(identity), -identity), default=None)


def id_counts(ids: NDArray[Any]) -> dict[int, int]:
    """Pixels per id, of the ids that occur."""
    counts = np.bincount(ids.ravel())
    return {int(identity): int(counts[identity]) for identity in np.flatnonzero(counts)}


def best_ids(overlaps: Mapping[str, Overlap]) -> Assignment:
    """Each prompt's best id; a prompt that no id overlaps gets none."""
    best = {prompt: overlap.best() for prompt, overlap in overlaps.items()}
    return {prompt: [] if identity is None else [identity] for prompt, identity in best.items()}


def ids_from_training_masks(
    noisy: Path, exact: Path, true_ids: Mapping[str, Sequence[int]], view_names: Iterable[str]
) -> Assignment:
    """Oracle assignment by the training masks.

    For each prompt: the id of the masks that trained (`noisy/<view>.png`) which best covers its true ids in
    `exact/<view>.png`, over the training views that have both files.
    """
    overlaps = {prompt: Overlap() for prompt in true_ids}
    for name in view_names:
        noisy_path, exact_path = noisy / f"{name}.png", exact / f"{name}.png"
        if not (noisy_path.is_file() and exact_path.is_file()):
            continue
        truth = read_id_map(exact_path)
        ids = resize_id_map(read_id_map(noisy_path), truth.shape[1], truth.shape[0])
        for prompt, wanted in true_ids.items():
            overlaps[prompt].add(ids, np.isin(truth, wanted))
    return best_ids(overlaps)


def read_ids(path: Path) -> Assignment:
    """Reads `{prompt: id or [ids]}`, alone or under `ids` (our results) or `prompts` (prompts.json).

    Raises:
        UserError: no such file, not JSON, or a value that is neither an id nor a list of ids.
    """
    table = read_json(path)
    for key in ("ids", "prompts"):
        if isinstance(table, dict) and isinstance(table.get(key), dict):
            table = table[key]
            break
    if not isinstance(table, dict):
        raise UserError(f"{path}: holds no table of prompts. Write {{prompt: id or [ids]}} into it.")
    return {prompt: _id_list(path, prompt, value) for prompt, value in table.items()}


def _id_list(path: Path, prompt: str, value: object) -> list[int]:
    values: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in values):
        raise UserError(
            f"{path}: prompt '{prompt}' has {value!r}. Give it an id or a list of ids, 0 or above."
        )
    return values
