"""Association of single views' masks, scored against the true ids.

    python benchmarks/bench_associate3d.py --scene data/demo --json benchmarks/results/associate3d_demo.json
    python benchmarks/bench_associate3d.py --scene data/demo --ply scene.ply --json associate_splat_demo.json

Every mask of `object_mask_exact/` and then of `object_mask/` (noisy) gets its ids shuffled at random, view by
view, and `prepare_masks.py`'s association has to find out which belong together: by tracks, or with `--ply`
through a splat of the scene (`bench_finished.py` has its training). Scores, over all pixels of
all views: the adjusted Rand index; purity, the share of pixels whose id mostly means the same object;
completeness, the share of pixels whose object mostly has the same id; the mean over the true objects of the
IoU of their best id. Pixels without an id count as one more id. `input` scores the ids as they were before
the shuffle: what noise in the masks leaves possible.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import numpy as np

from arguments import ModelParams
from benchmarks.machine import environment
from gradiseg.finished.association import associate
from preparation import association
from preparation.id_maps import find_masks, number_objects, relabel, take_census
from preparation.masks import MIN_VIEWS, Associate, by_area, by_tracks
from scene.dataset_readers import read_scene
from scene.masks import read_id_map, write_id_map
from utils.json_files import write_json

KINDS = ("object_mask_exact", "object_mask")


def shuffle_masks(paths: Mapping[str, Path], folder: Path, seed: int) -> None:
    """Writes every mask to `folder` with its ids but 0 replaced by a random order of 1, 2, ..."""
    generator = np.random.default_rng(seed)
    for name, path in paths.items():
        ids = read_id_map(path)
        present = np.unique(ids)
        labels = np.where(present > 0, 1 + np.argsort(generator.random(len(present))), 0)
        write_id_map(folder / f"{name}.png", labels[np.searchsorted(present, ids)])


def contingency(maps: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Pixels (T,P) of every true id with every found id, summed over pairs of maps (true, found)."""
    total: np.ndarray = np.zeros((1, 1))
    for true, found in maps:
        shape = true.max() + 1, found.max() + 1
        table = np.bincount((true * shape[1] + found).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        grown: np.ndarray = np.zeros(np.maximum(total.shape, shape))
        grown[: total.shape[0], : total.shape[1]] = total
        grown[: shape[0], : shape[1]] += table
        total = grown
    return total[np.ix_(total.any(axis=1), total.any(axis=0))]


def scores(table: np.ndarray) -> dict[str, float]:
    """The scores of a contingency table (T,P), see the module's docstring."""

    def pairs(count: np.ndarray) -> float:
        return float((count * (count - 1) / 2).sum())

    true, found, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    expected = pairs(true) * pairs(found) / pairs(total)
    iou = table / (true[:, None] + found - table)
    return {
        "adjusted_rand_index": (pairs(table) - expected) / (0.5 * (pairs(true) + pairs(found)) - expected),
        "purity": float(table.max(axis=0).sum() / total),
        "completeness": float(table.max(axis=1).sum() / total),
        "mean_best_iou": float(iou.max(axis=1).mean()),
    }


def measure(scene: Path, kind: str, seed: int, join: Associate) -> dict[str, Any]:
    """Scores of the association of the shuffled masks in `kind`, and what it took."""
    info = read_scene(ModelParams(str(scene)))
    views = sorted([*info.train_cameras, *info.test_cameras], key=lambda view: view.image_name)
    given = find_masks(scene / kind, views)
    with tempfile.TemporaryDirectory() as folder:
        shuffle_masks(given, Path(folder), seed)
        views = [view for view in views if view.image_name in given]
        census = take_census(find_masks(Path(folder), views), views)
        start = time.process_time()
        objects = by_area(join(info, views, census), views, census)
        seconds = time.process_time() - start
        numbers, table = number_objects(census, objects, MIN_VIEWS["associate3d"])
        true = {name: read_id_map(scene / "object_mask_exact" / f"{name}.png") for name in given}
        found = {name: relabel(census[name], numbers[name], read_id_map(census[name].path)) for name in given}
        result = scores(contingency((true[name], found[name]) for name in given))
    before = scores(contingency((true[name], read_id_map(path)) for name, path in given.items()))
    return {
        "views": len(given),
        "segments": sum(len(segments.ids) for segments in census.values()),
        "true_ids": len(np.unique(np.concatenate([np.unique(ids) for ids in true.values()]))),
        "ids": len(table["ids"]),
        "dropped_ids": table["dropped"]["ids"],
        "dropped_pixels": table["dropped"]["pixels"] / sum(ids.size for ids in true.values()),
        **result,
        "input": before,
        "cpu_seconds": seconds,
    }


def main() -> None:
    """Measures a scene and prints or writes the record."""
    parser = argparse.ArgumentParser(description="Association of single views' masks, scored.")
    parser.add_argument("--scene", type=Path, required=True, help="scene with object_mask_exact/")
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--ply", help="a splat of the scene: associate through it")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle")
    parser.add_argument("--tracks_only", action="store_true", help="without virtual points")
    arguments = parser.parse_args()
    if arguments.tracks_only:
        association.SAMPLES = association.SAMPLES_PER_VIEW = 0
        association.MIN_EVIDENCE = 1  # tracks are few
    flags = f"--scene {arguments.scene.name} --seed {arguments.seed}"
    flags += " --tracks_only" * arguments.tracks_only
    flags += f" --ply {Path(arguments.ply).name}" if arguments.ply else ""
    join = partial(associate, arguments.ply, "cpu") if arguments.ply else by_tracks
    record: dict[str, Any] = {"command": f"python benchmarks/bench_associate3d.py {flags}", **environment()}
    for kind in KINDS:
        record[kind] = measure(arguments.scene, kind, arguments.seed, join)
    if arguments.json:
        write_json(arguments.json, record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
