"""Segments of every view, made once: a call with the same settings goes on where an earlier one ended."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any

import numpy as np

from scene.masks import write_id_map
from scene.views import CameraInfo
from utils.errors import UserError
from utils.image import read_pixels
from utils.json_files import read_json, write_json
from utils.log import bar

SETTINGS = "settings.json"

Segmenter = Callable[[np.ndarray], np.ndarray]  # photograph (H,W,3) uint8 -> segments (H,W), 0 = none


class SegmentFolder:
    """`<scene>/segments/<name>/`: an id map per view and the settings that they were made with."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], views: Sequence[CameraInfo]) -> None:
        self.folder = folder
        absent = [view.image_path for view in views if not view.image_path.is_file()]
        if absent:
            raise UserError(
                f"{absent[0]}: in the model but not on disk ({len(absent)} such images). Copy them there, or "
                "name their folder with -i (--images)."
            )
        described = dict(settings) | {  # a scene stays the same under another path to it
            "images": [
                [view.image_name, view.image_path.parent.name, view.image_path.stat().st_size]
                for view in views
            ]
        }
        record = folder / SETTINGS
        if record.is_file() and read_json(record, "Delete it.") == described:
            return
        if folder.is_dir() and any(folder.iterdir()):
            if not record.is_file():
                raise UserError(
                    f"{folder}: holds files that prepare_masks.py did not make, in the place of its "
                    "segments. Move them elsewhere."
                )
            shutil.rmtree(folder)
        write_json(record, described)

    def path(self, view: CameraInfo) -> Path:
        """Where the segments of a view are."""
        return self.folder / f"{view.image_name}.png"

    def write(self, view: CameraInfo, ids: np.ndarray) -> None:
        """Keeps the segments (H,W) of a view."""
        write_id_map(self.path(view), ids)


def segment_views(
    folder: SegmentFolder, views: Sequence[CameraInfo], load: Callable[[], Segmenter]
) -> dict[str, Path]:
    """View name -> its segments, made by the segmenter that `load` gives where they are not there yet."""
    missing = [view for view in views if not folder.path(view).is_file()]
    segmenter = load() if missing else None
    for view in bar(missing, "Segmenting"):
        assert segmenter is not None
        folder.write(view, segmenter(read_pixels(view.image_path)))
    return {view.image_name: folder.path(view) for view in views}


@contextmanager
def disk_full_told(folder: Path) -> Iterator[None]:
    """Turns a full disk into an error that says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT):
            raise
        raise UserError(
            f"{folder}: the disk is full. Free some space and run the same command again: masks that were "
            "there are as before, segments that were done stay."
        ) from error
