"""The writer behind every backend: id maps in, `object_mask/` with dense ids out, whole or not at all.

Sources are PNG files, one per view, whose ids mean whatever the backend says. A census of them holds, per
view, the ids (K,) other than 0 and their pixels (K,); a backend gives every one of these an object (K,), a
number > 0 that is the same in all views. The objects that stay are numbered 1, 2, ... in their order.
`ids.json` beside the masks holds the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scene.checks import ViewSizes, judge_mask_shapes, settle
from scene.masks import read_id_map, write_id_map
from scene.names import match_masks
from scene.views import CameraInfo
from utils.errors import UserError, some
from utils.files import atomic_folder, check_free_space
from utils.image import image_size
from utils.json_files import write_json
from utils.log import bar

MAX_IDS = 65535  # of a 16-bit mask, beside 0
TABLE = "ids.json"
BYTES_PER_PIXEL = 0.25  # of a compressed id map, at most: the demo scene's have 0.05
DEVA_FOLDER = "Annotations"  # where DEVA puts its id maps inside its output folder


@dataclass(frozen=True)
class Segments:
    """The segments of a view: where their id map is, the ids in it but 0, and their pixels."""

    path: Path
    ids: np.ndarray  # (K,) ascending
    pixels: np.ndarray  # (K,)


def find_masks(folder: Path, views: Sequence[CameraInfo]) -> dict[str, Path]:
    """View name -> its mask `<folder>/<name>.png`, or that in DEVA's `Annotations/`, where there is one.

    Raises:
        UserError: no folder, no masks, or masks most of which belong to no view.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. --masks takes a folder of id maps, one PNG per image.")
    folder = folder / DEVA_FOLDER if (folder / DEVA_FOLDER).is_dir() else folder
    found, strangers = match_masks(folder, views)
    if not found and not strangers:
        raise UserError(f"{folder}: holds no PNG. --masks takes a folder of id maps, one PNG per image.")
    if len(found) < len(strangers):
        names = [path.relative_to(folder).as_posix() for path in strangers]
        raise UserError(
            f"{folder}: {len(strangers)} of its {len(found) + len(strangers)} masks ({some(names)}) carry "
            f"the name of no image of the scene ({some([view.image_name for view in views])}). Are they "
            "those of another scene?"
        )
    return found


def take_census(paths: Mapping[str, Path], views: Sequence[CameraInfo]) -> dict[str, Segments]:
    """Reads every mask once: its ids, its size against its image's.

    Raises:
        UserError: a mask that cannot be read, has other proportions than its image, or holds too many ids.
    """
    by_name = {view.image_name: view for view in views}
    census = {}
    for name, path in bar(paths.items(), "Reading masks"):
        ids, view = read_id_map(path), replace(by_name[name], mask_path=path)
        settle(judge_mask_shapes([ViewSizes(view, image_size(view.image_path), ids.shape[::-1])]), ())
        present, pixels = np.unique(ids[ids != 0], return_counts=True)
        if len(present) > MAX_IDS:
            raise UserError(
                f"{path}: holds {len(present):,} ids. Is it a coloured picture of a mask, not an id map?"
            )
        census[name] = Segments(path, present, pixels)
    return census


def number_objects(
    census: Mapping[str, Segments], objects: Mapping[str, np.ndarray], min_views: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Dense ids (K,) per view of the objects seen in `min_views` or more, 0 for the others, and the table.

    Raises:
        UserError: more objects than a 16-bit mask can tell apart.
    """
    names = list(census)
    keys = np.concatenate([objects[name] for name in names])
    pixels = np.concatenate([census[name].pixels for name in names])
    view = np.repeat(np.arange(len(names)), [len(objects[name]) for name in names])
    present, index = np.unique(keys, return_inverse=True)
    seen = np.unique(np.stack([index.ravel(), view]), axis=1)[0]
    views = np.bincount(seen, minlength=len(present))
    area = np.bincount(index.ravel(), pixels, minlength=len(present)).astype(int)
    kept = views >= min_views
    if kept.sum() > MAX_IDS:
        raise UserError(
            f"the masks hold {kept.sum():,} ids, a 16-bit mask at most {MAX_IDS:,}. Are they coloured "
            "pictures, not id maps? --min_views 3 drops ids that fewer views show."
        )
    number = np.where(kept, np.cumsum(kept), 0)
    table = {
        "ids": {
            str(number[k]): {"source": int(present[k]), "views": int(views[k]), "pixels": int(area[k])}
            for k in np.flatnonzero(kept)
        },
        "dropped": {"ids": int((~kept).sum()), "pixels": int(area[~kept].sum())},
    }
    return {name: number[np.searchsorted(present, objects[name])] for name in names}, table


def write_masks(
    target: Path,
    census: Mapping[str, Segments],
    numbers: Mapping[str, np.ndarray],
    table: Mapping[str, Any],
) -> None:
    """Makes the folder `target`, a mask per view and the table, in place of an older one once it is whole."""
    largest = max((int(ids.max(initial=0)) for ids in numbers.values()), default=0)
    pixel_type = np.uint8 if largest < 256 else np.uint16
    width, height = image_size(next(iter(census.values())).path)
    check_free_space(target, int(BYTES_PER_PIXEL * width * height * len(census)), "--object_path")
    with atomic_folder(target) as folder:
        for name, segments in bar(census.items(), "Writing masks"):
            write_id_map(
                folder / f"{name}.png",
                relabel(segments, numbers[name], read_id_map(segments.path)),
                pixel_type,
            )
        write_json(folder / TABLE, table)


def relabel(segments: Segments, numbers: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The id map `ids` (H,W) with every id of `segments` replaced by its number; 0 stays."""
    known = np.r_[0, segments.ids]
    order = np.argsort(known, kind="stable")
    replaced: np.ndarray = np.r_[0, numbers][order][np.searchsorted(known[order], ids)]
    return replaced
