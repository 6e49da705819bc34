"""Id maps for a scene, by one of five backends.

- `external`: id maps that another program tracked through the views (DEVA); only their ids change.
- `associate3d`: segments of single views, joined where points of the sparse model say they are one object.
- `splat`: the same, joined where Gaussians of a finished splat colour both.
- `clicks`: objects that were clicked in a few views, cut out by a network and carried on by a splat.
- `sam2`: automatic masks on key frames, propagated through the views in the order of their names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arguments import ModelParams, option
from preparation import association
from preparation.association import SegmentedView
from preparation.id_maps import Segments, find_masks, number_objects, take_census, write_masks
from preparation.segment_folder import Segmenter, SegmentFolder, disk_full_told, segment_views
from preparation.video_masks import track_objects
from pretrained.hed import EdgeSegmenter
from pretrained.prompted import NETWORKS, PromptedSegmenter, load_prompted
from pretrained.sam import load_sam, segment_everything
from scene.colmap import read_observations, read_point_ids
from scene.dataset_readers import read_scene
from scene.masks import read_id_map
from scene.names import without_suffix
from scene.views import CameraInfo, SceneInfo
from utils.errors import UserError
from utils.log import logger

LONGEST_SIDE = 1024  # pixels of the id maps that are associated: finer ones would only cost memory
MIN_VIEWS = {"external": 1, "sam2": 3, "associate3d": 3, "splat": 3, "clicks": 1}
NEEDS_SPLAT = ("splat", "clicks")
WALK = "walk"
TAKES_CLICKS = (WALK, *NETWORKS)

# Object (N,) of every segment of the views.
Associate = Callable[[SceneInfo, Sequence[CameraInfo], Mapping[str, Segments]], np.ndarray]
# View name -> id map (H,W) of what is clicked, and the names of its ids from 1 on; None: without a network.
CutOut = Callable[
    [SceneInfo, Sequence[CameraInfo], PromptedSegmenter | None],
    tuple[Mapping[str, np.ndarray], Sequence[str]],
]


@dataclass(frozen=True)
class BySplat:
    """What a splat does for masks. It renders, so that this lies above the room of preparation."""

    associate: Associate
    cut_out: CutOut


@dataclass
class MaskParams:
    """Which masks are made, of what."""

    source_path: str = option("", "folder of the scene", flags=["-s"])
    images: str = option("images", "folder of the images inside the scene", flags=["-i"])
    object_path: str = option("object_mask", "folder inside the scene that the masks are written to")
    backend: str = option("associate3d", "where consistent ids come from", choices=list(MIN_VIEWS))
    masks: str = option("", "folder of id maps to start from (all but sam2, clicks)")
    segmenter: str = option(
        "hed",
        "what makes the masks of single views (associate3d, splat, clicks)",
        choices=["hed", *TAKES_CLICKS],
    )
    ply: str = option("", "a finished splat of the scene (splat, clicks)")
    clicks: str = option("", "JSON of points on objects, {name: {view: [[x, y], ...]}} (clicks)")
    cameras: str = option("", "poses in place of the scene's own: 3DGS's cameras.json or a transforms.json")
    dataparser: str = option("", "nerfstudio's dataparser_transforms.json, whose frame the splat is in")
    weights: str = option("", "weights of the model: a local folder or file, or a name on the hub")
    key_interval: int = option(10, "views from one key frame to the next (sam2)", low=1)
    min_views: int = option(0, "drop ids that fewer views show; 0 = 1 for external and clicks, else 3", low=0)
    device: str = option("auto", "auto takes a GPU where there is one", choices=["auto", "cpu", "cuda"])
    overwrite: bool = option(False, "replace the masks that are there")
    json: str = option("", "also write the table of ids here")
    quiet: bool = option(False, "print errors only")


def prepare_masks(params: MaskParams, by_splat: BySplat) -> dict[str, Any]:
    """Makes `<scene>/<object_path>/` and returns the table of its ids.

    Raises:
        UserError: scene, masks or weights cannot be used, masks are there already, or the disk is full.
            What was in the folder stays.
    """
    check_options(params)
    scene = Path(params.source_path)
    info = read_scene(
        ModelParams(
            params.source_path, images=params.images, cameras=params.cameras, dataparser=params.dataparser
        )
    )
    for note in info.notes:
        logger.warning(note)
    views = sorted([*info.train_cameras, *info.test_cameras], key=lambda view: view.image_name)
    with disk_full_told(scene):
        paths, names = _segments(params, info, views, by_splat)
        census = take_census(paths, views)
        if params.backend in ("associate3d", "splat"):
            seen = [view for view in views if view.image_name in census]
            join = by_splat.associate if params.backend == "splat" else by_tracks
            objects = by_area(join(info, seen, census), seen, census)
        else:
            objects = {name: segments.ids for name, segments in census.items()}
        min_views = params.min_views or MIN_VIEWS[params.backend]
        numbers, ids = number_objects(census, objects, min(min_views, len(census)))
        table = {
            "backend": params.backend,
            "views": len(census),
            "views_without_mask": len(views) - len(census),
        }
        if names:
            shown = {int(number): row["source"] for number, row in ids["ids"].items()}
            table["names"] = {names[source - 1]: number for number, source in shown.items()}
        write_masks(scene / params.object_path, census, numbers, table | ids)
    return table | ids


def check_options(params: MaskParams) -> None:
    """Raises before any work where the options do not fit together or masks would be overwritten."""
    target = Path(params.source_path, params.object_path)
    if target.exists() and not params.overwrite:
        raise UserError(
            f"{target}: is there already. Write elsewhere with --object_path, or replace it with --overwrite."
        )
    if params.backend == "external" and not params.masks:
        raise UserError("--backend external needs --masks: the folder of the id maps.")
    if params.backend == "sam2" and params.masks:
        raise UserError("--masks: the sam2 backend makes its own. Use it with external or associate3d.")
    if (params.backend in NEEDS_SPLAT) != bool(params.ply):
        raise UserError(
            "--backend splat or clicks and --ply FILE, a finished splat of the scene, go together."
        )
    _check_clicks(params)
    if params.masks and Path(params.masks).absolute() == target.absolute():
        raise UserError(f"--masks and --object_path are both {target}. Write to another --object_path.")


def _check_clicks(params: MaskParams) -> None:
    if (params.backend == "clicks") != bool(params.clicks):
        raise UserError("--backend clicks and --clicks FILE, points on objects, go together.")
    if params.backend == "clicks" and params.segmenter not in TAKES_CLICKS:
        raise UserError(
            "--backend clicks needs what takes clicks: --segmenter walk (no network), sam, sam2, torchscript."
        )
    if params.backend == "clicks" and params.masks:
        raise UserError("--masks: the clicks backend makes its own. Leave it out.")
    if params.segmenter in (WALK, "torchscript") and params.backend != "clicks":
        raise UserError(
            f"--segmenter {params.segmenter} cuts out what is clicked: use it with --backend clicks."
        )


def by_tracks(info: SceneInfo, views: Sequence[CameraInfo], census: Mapping[str, Segments]) -> np.ndarray:
    """Object (N,) of every segment of the views, by the tracks of the model.

    Raises:
        UserError: the model cannot be read or holds no tracks.
    """
    model = info.model_folder
    if model is None:
        raise UserError(
            "the scene has cameras of JSON. --backend associate3d joins masks by the tracks of a COLMAP "
            "model."
        )
    segmented = _segmented_views(info, model, views, census)
    if not any(len(view.points) for view in segmented):
        raise UserError(
            f"{model}: images.bin/.txt holds no tracks, by which --backend associate3d joins masks. Copy "
            "COLMAP's own files into it."
        )
    return association.associate(segmented, sum(len(census[view.image_name].ids) for view in views))


def by_area(
    found: np.ndarray, views: Sequence[CameraInfo], census: Mapping[str, Segments]
) -> dict[str, np.ndarray]:
    """View name -> object (K,) of each of its segments, of `found` (N,) of all views; larger ones first."""
    area = np.bincount(found, np.concatenate([census[view.image_name].pixels for view in views]))
    rank = np.empty(len(area), dtype=np.int64)
    rank[np.argsort(-area, kind="stable")] = np.arange(1, len(area) + 1)
    sizes = [len(census[view.image_name].ids) for view in views]
    parts = np.split(rank[found], np.cumsum(sizes)[:-1])
    return {view.image_name: part for view, part in zip(views, parts, strict=True)}


def _segmented_views(
    info: SceneInfo, model: Path, views: Sequence[CameraInfo], census: Mapping[str, Segments]
) -> list[SegmentedView]:
    """What association needs of every view; the id maps are read again, at most LONGEST_SIDE large."""
    points, observations = info.point_cloud.points, _observations_by_stem(model)
    point_ids = read_point_ids(model)
    order = np.argsort(point_ids)
    segmented, first = [], 0
    for view in views:
        segments, seen = census[view.image_name], observations[view.image_name]
        seen = seen[np.isin(seen["point"], point_ids)]
        ids = read_id_map(segments.path)
        step = max(1, -(-max(ids.shape) // LONGEST_SIDE))
        ids = ids[step // 2 :: step, step // 2 :: step]
        nodes = np.where(ids > 0, first + np.searchsorted(segments.ids, ids), -1).astype(np.int32)
        first += len(segments.ids)
        scale = np.array([ids.shape[1] / view.width, ids.shape[0] / view.height])
        index = order[np.searchsorted(point_ids, seen["point"], sorter=order)]
        segmented.append(
            SegmentedView(
                nodes,
                (view.fx * scale[0], view.fy * scale[1], view.cx * scale[0], view.cy * scale[1]),
                view.R.T,
                view.T,
                np.stack([seen["x"], seen["y"]], axis=1) * scale,
                index,
                points[index],
            )
        )
    return segmented


def _observations_by_stem(model: Path) -> dict[str, np.ndarray]:
    return {without_suffix(name): seen for name, seen in read_observations(model).items()}


def _segments(
    params: MaskParams, info: SceneInfo, views: Sequence[CameraInfo], by_splat: BySplat
) -> tuple[dict[str, Path], Sequence[str]]:
    """View name -> id map that the backend starts from: given, or made into `<scene>/segments/`.

    Beside it the names of the ids from 1 on, where they have some.
    """
    if params.masks:
        return find_masks(Path(params.masks), views), ()
    device = _device(params.device)
    kind = "sam2_video" if params.backend == "sam2" else params.segmenter
    settings: dict[str, Any] = {"kind": kind, "weights": params.weights}
    if params.backend == "clicks":
        prompted = None if kind == WALK else load_prompted(kind, params.weights, device)
        maps, names = by_splat.cut_out(info, views, prompted)
        folder = SegmentFolder(Path(params.source_path, "segments", "clicks"), settings, views)
        shown = [view for view in views if view.image_name in maps]
        for view in shown:
            folder.write(view, maps[view.image_name])
        return {view.image_name: folder.path(view) for view in shown}, names
    if params.backend == "sam2":
        settings["key_interval"] = params.key_interval
    folder = SegmentFolder(Path(params.source_path, "segments", kind), settings, views)
    if params.backend == "sam2":
        return track_objects(folder, views, params.weights, params.key_interval, device), ()
    return segment_views(folder, views, partial(_load_segmenter, kind, params.weights, device)), ()


def _load_segmenter(kind: str, weights: str, device: torch.device) -> Segmenter:
    if kind == "hed":
        return EdgeSegmenter(weights, device)
    return partial(segment_everything, load_sam(kind, weights, device))


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU here. Use --device cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
