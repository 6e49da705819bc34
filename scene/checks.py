"""The data check: what is wrong, doubtful or worth knowing about a scene, by names, headers and cameras.

Training (`settle`: the first error ends it, the rest is told) and the data doctor (which goes on, and reads
every pixel besides) judge by the same functions, one per subject. All of them together take less than a
second for some hundreds of views.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from arguments import MAX_CLASSES, ModelParams
from scene.names import MASK, PICTURES, is_there, match_masks, visible_files, without_folders, without_suffix
from scene.views import CameraInfo, SceneInfo
from utils.errors import UserError, some
from utils.image import image_size, is_deep, open_image
from utils.log import logger

LEVELS = ("error", "warning", "note")
ASPECT_TOLERANCE = 1.5  # pixels: folders such as images_4 are rounded to whole pixels
RANDOM_POINTS = 100_000  # from which a scene without points starts
RANDOM_EXTENT = 1.3  # the synthetic NeRF scenes fit in [-1.3, 1.3]^3
SMALL_CLOUD = 500  # points; densification starts from too little
WIDE_STEP = 30.0  # degrees between a view and its nearest, beyond which surfaces are seen once
OFF_CENTRE = 0.02  # of an edge: where cropped photographs have their principal point
MANY_SPARE = 0.2  # share of images without a pose: COLMAP lost a part of the scene
LABELLED = 0.02  # share of labelled pixels below which a mask holds next to nothing


@dataclass(frozen=True)
class Finding:
    """One result: an error (training refuses the scene), a warning (probably not as meant) or a note."""

    level: str
    text: str


@dataclass(frozen=True)
class ViewSizes:
    """(width, height) of a view's files; None where there is no mask, or where a file cannot be read."""

    view: CameraInfo
    image: tuple[int, int] | None
    mask: tuple[int, int] | None
    is_deep: bool = False  # 16 bits per channel of the image


def check_views(train: Sequence[CameraInfo], test: Sequence[CameraInfo]) -> None:
    """Raise unless there is something to train on and every pose and focal length is usable."""
    if not train:
        raise UserError(
            f"no training views ({len(test)} test views). With --train_split, images_train/ must hold names "
            "of images in the model; otherwise check sparse/0/images."
        )
    for view in (*train, *test):
        intrinsics = np.array([view.fx, view.fy, view.cx, view.cy])
        if not (np.isfinite(view.R).all() and np.isfinite(view.T).all() and np.isfinite(intrinsics).all()):
            raise UserError(
                f"{view.image_name}: its pose or camera holds NaN or Inf. Leave it out of the model."
            )
        if abs(np.linalg.det(view.R) - 1.0) > 1e-3:
            raise UserError(
                f"{view.image_name}: its pose is no rotation. Export the model again or leave it out."
            )
        if min(view.fx, view.fy, view.width, view.height) <= 0:
            raise UserError(
                f"{view.image_name}: its camera has a focal length or size of 0 or less. Check cameras."
            )


def check_points(points: np.ndarray, cloud: str) -> None:
    """Raise unless `points` (N,3), which come from `cloud`, are finite and not empty."""
    if len(points) == 0:
        raise UserError(f"{cloud}: the point cloud is empty. Triangulate points (colmap point_triangulator).")
    bad = int((~np.isfinite(points).all(axis=1)).sum())
    if bad:
        raise UserError(
            f"{cloud}: {bad} of {len(points)} points hold NaN or Inf. Remove them or export again."
        )


def usable_device(data_device: str, device: torch.device | str) -> str:
    """`data_device`, or the CPU (and a note) where a run made with a GPU is opened by a command that computes
    on the CPU: that does not wait for what comes from a GPU.
    """
    if data_device.startswith("cuda") and torch.device(device).type == "cpu":
        logger.warning("--data_device %s: computing on the CPU, the photographs stay there.", data_device)
        return "cpu"
    return data_device


def settle(findings: Iterable[Finding], levels: Sequence[str] = LEVELS) -> list[str]:
    """Raise the first error as UserError; log the others of `levels` and return their texts."""
    told = []
    for finding in findings:
        if finding.level == "error":
            raise UserError(finding.text)
        if finding.level in levels:
            logger.warning(finding.text)
            told.append(finding.text)
    return told


def read_sizes(views: Sequence[CameraInfo]) -> list[ViewSizes]:
    """Sizes by the files' headers.

    Raises:
        UserError: a picture is not there or none.
    """
    absent = [view.image_path for view in views if not is_there(view.image_path)]
    if absent:
        raise UserError(
            f"{absent[0]}: in the model but not on disk ({len(absent)} such images). Copy them there, or "
            "name their folder with -i (--images)."
        )
    return [_sizes(view) for view in views]


def _sizes(view: CameraInfo) -> ViewSizes:
    with open_image(view.image_path) as file:
        image, deep = file.size, is_deep(file)
    return ViewSizes(view, image, image_size(view.mask_path) if view.mask_path else None, deep)


def judge_image_shapes(sizes: Sequence[ViewSizes]) -> Iterator[Finding]:
    """Images against their cameras, and their bits."""
    deep = [s.view.image_name for s in sizes if s.is_deep]
    if deep:
        yield Finding("note", f"{len(deep)} images have 16 bits per channel ({some(deep)}): scaled to 8.")
    odd = [s for s in sizes if s.image and _differ(s.image, (s.view.width, s.view.height))]
    if odd:
        width, height = odd[0].image or (0, 0)
        yield Finding(
            "error",
            f"{odd[0].view.image_path}: {width}x{height}, but its camera is {odd[0].view.width}x"
            f"{odd[0].view.height} ({_such(odd)}). Use the images that belong to the model: undistorted ones "
            "to an undistorted model, and turned upright (EXIF) only if COLMAP saw them so.",
        )


def judge_mask_shapes(sizes: Sequence[ViewSizes]) -> Iterator[Finding]:
    """Masks against their images."""
    masked = [(s, s.image, s.mask) for s in sizes if s.image and s.mask]
    turned = [(s, image, mask) for s, image, mask in masked if _differ(mask, image)]
    if turned:
        first, image, mask = turned[0]
        yield Finding(
            "error",
            f"{first.view.mask_path}: {mask[0]}x{mask[1]}, but {first.view.image_path} is {image[0]}x"
            f"{image[1]} ({_such([s for s, *_ in turned])}). Use masks of these images: scaled is fine; "
            "cropped or turned (EXIF) is not, nor are masks of distorted images.",
        )
    resized = [s.view.image_name for s, image, mask in masked if image != mask and not _differ(mask, image)]
    if resized:
        yield Finding(
            "note",
            f"{len(resized)} masks differ in size from their images ({some(resized)}): resized, aligned.",
        )


def judge_mask_names(info: SceneInfo, params: ModelParams) -> Iterator[Finding]:
    """Which views have masks, and which masks have views."""
    folder = Path(params.source_path, params.object_path)
    train = [view.image_name for view in info.train_cameras]
    missing = [view.image_name for view in info.train_cameras if view.mask_path is None]
    strangers = match_masks(folder, [*info.train_cameras, *info.test_cameras])[1]
    names = [path.relative_to(folder).as_posix() for path in strangers]
    if len(missing) == len(train):
        yield Finding("error", _no_masks(folder, names, train[0]))
        return
    if missing:
        yield Finding(
            "warning",
            f"{len(missing)} of {len(train)} training views have no mask in {folder} ({some(missing)}): they "
            "train on colour alone.",
        )
    if names:
        yield Finding("warning", f"{folder}: masks that belong to no image: {some(names)}.")


def judge_labels(areas: Mapping[str, Mapping[int, int]], params: ModelParams) -> Iterator[Finding]:
    """What the masks of the training views hold: view name -> id -> pixels."""
    folder = Path(params.source_path, params.object_path)
    ids = {label for found in areas.values() for label in found}
    if areas and ids <= {0}:
        yield Finding(
            "error",
            f"{folder}: all {len(areas)} masks of training views are black (id 0 everywhere): there is "
            "nothing to segment. prepare_masks.py makes masks.",
        )
        return
    problem = ids_without_class(folder, max(ids, default=0), params.num_classes)
    if problem:
        yield Finding("error", problem)
    bare = [
        name
        for name, found in areas.items()
        if sum(pixels for label, pixels in found.items() if label) < LABELLED * sum(found.values())
    ]
    if bare:
        yield Finding(
            "warning",
            f"{len(bare)} of {len(areas)} masks of training views hold next to no label ({some(bare)}): "
            "every object in them trains as id 0. Delete these masks, and the views train on colour alone.",
        )


def ids_without_class(where: Path, largest: int, num_classes: int) -> str:
    """What to say of masks whose largest id has no class; nothing where it has one."""
    if largest < num_classes:
        return ""
    if largest < MAX_CLASSES:
        return (
            f"{where}: holds id {largest}, but num_classes is {num_classes}. Use --num_classes {largest + 1} "
            "or more, or number the ids anew: prepare_masks.py --backend external. If the run is trained "
            "already, the masks are newer than it: put back those of its training, or train anew."
        )
    return (
        f"{where}: holds id {largest:,}, but {MAX_CLASSES - 1:,} is the largest possible. Ids coded as "
        "colours, as DEVA writes them, are numbered anew by prepare_masks.py -s SCENE --backend external "
        f"--masks {where if where.suffix != MASK else where.parent} --object_path object_mask_ids; then "
        "train with --object_path object_mask_ids."
    )


def judge_split(info: SceneInfo, params: ModelParams) -> Iterator[Finding]:
    """Test views that train, and true masks that stand for no test view."""
    source, test = Path(params.source_path), info.test_cameras
    for folder in ("images_train", "test_mask"):
        if not test and (source / folder).is_dir():
            yield Finding(
                "warning",
                f"{source / folder} is there, but no view is held out: with these options test views train, "
                "too. Use --train_split, or --eval.",
            )
            return
    if not test:
        yield Finding(
            "note", "no test views: --eval holds out every 8th, --train_split those not in images_train/"
        )
    names = {*without_folders([view.image_name for view in test]), *map(str, range(len(test)))}
    if test and (source / "test_mask").is_dir():
        folders = {path.name for path in (source / "test_mask").iterdir() if path.is_dir()}
        strangers = sorted(name for name in folders - names if not name.startswith("."))
        if strangers:
            yield Finding("warning", f"test_mask: folders that stand for no test view: {some(strangers)}")


def judge_cameras(info: SceneInfo, params: ModelParams) -> Iterator[Finding]:
    """Principal points, and how far the views are apart."""
    off = {
        f"{view.cx:.1f}, {view.cy:.1f} of {view.width}x{view.height}"
        for view in (*info.train_cameras, *info.test_cameras)
        if abs(view.cx / view.width - 0.5) > OFF_CENTRE or abs(view.cy / view.height - 0.5) > OFF_CENTRE
    }
    if off:
        yield Finding(
            "note", f"principal point away from the centre (cropped photographs?): {some(sorted(off))}"
        )
    if len(info.train_cameras) > 1:
        lonely = [
            f"{view.image_name} ({angle:.0f} degrees)"
            for view, angle in zip(info.train_cameras, nearest_view_angles(info), strict=True)
            if angle > WIDE_STEP
        ]
        if lonely:
            yield Finding("warning", f"training views far from any other: {some(lonely)}")


def judge_points(info: SceneInfo, params: ModelParams) -> Iterator[Finding]:
    """The point cloud: whether it is there, and its size."""
    if not info.has_points:
        folder = Path(params.cameras).parent if params.cameras else Path(params.source_path)
        yield Finding(
            "warning",
            f"{folder}: no points3d.ply, so training starts from {RANDOM_POINTS:,} random points within "
            f"{RANDOM_EXTENT} of the origin, which suits synthetic scenes.",
        )
    count = len(info.point_cloud.points)
    if count < SMALL_CLOUD:
        yield Finding(
            "warning", f"the point cloud has {count} points. More features or photographs give more."
        )


def judge_spare_images(info: SceneInfo, params: ModelParams) -> Iterator[Finding]:
    """Pictures in the image folder that the cameras do not name."""
    folder = Path(params.source_path, params.images)
    used = {view.image_name for view in (*info.train_cameras, *info.test_cameras)}
    names = [
        path.relative_to(folder).as_posix()
        for path in (visible_files(folder) if info.model_folder and folder.is_dir() else ())
        if path.suffix.lower() in PICTURES
    ]
    spare = [name for name in names if without_suffix(name) not in used]
    if spare:
        level = "warning" if len(spare) > MANY_SPARE * len(names) else "note"
        yield Finding(level, f"{folder}: images without a pose, which are not used: {some(spare)}")


Judge = Callable[[SceneInfo, ModelParams], Iterator[Finding]]
OF_START: tuple[Judge, ...] = (judge_cameras, judge_points)  # what matters where a model starts from points
QUICK: tuple[Judge, ...] = (judge_split, judge_spare_images, *OF_START)


def check_scene(info: SceneInfo, params: ModelParams, trains: bool, starts: bool = True) -> list[str]:
    """Everything that can be told before a pixel is read; of a trained run only what concerns its files.

    `starts`: whether training starts from the scene's points.
    Returns: what was logged.
    Raises:
        UserError: the first error.
    """
    for note in info.notes:
        logger.warning(note)
    sizes = read_sizes([*info.train_cameras, *info.test_cameras])
    notes = info.notes + settle(judge_image_shapes(sizes)) + settle(judge_mask_shapes(sizes))
    if trains:
        notes += settle(judge_mask_names(info, params))
        for judge in QUICK:
            if starts or judge not in OF_START:
                notes += settle(judge(info, params), ("warning",))
    return notes


def nearest_view_angles(info: SceneInfo) -> np.ndarray:
    """Degrees (V,) from each training view to its nearest one, seen from the middle of the point cloud."""
    centres = np.stack([-view.R @ view.T for view in info.train_cameras])  # (V, 3)
    rays = centres - np.median(info.point_cloud.points, axis=0)
    rays = rays / np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    cosines = np.clip(rays @ rays.T, -1.0, 1.0)
    np.fill_diagonal(cosines, -1.0)
    angles: np.ndarray = np.degrees(np.arccos(cosines.max(axis=1)))
    return angles


def _differ(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether two sizes have other proportions."""
    return abs(size[0] / wanted[0] * wanted[1] - size[1]) > ASPECT_TOLERANCE


def _such(views: Sequence[ViewSizes]) -> str:
    return f"{len(views)} such: {some([s.view.image_name for s in views])}"


def _no_masks(folder: Path, strangers: Sequence[str], view: str) -> str:
    if strangers:
        return (
            f"{folder}: no masks of training views; its {len(strangers)} files, such as {strangers[0]}, "
            f"carry the names of other images. Wanted is {view}{MASK}."
        )
    others = [path.name for path in visible_files(folder)] if folder.is_dir() else []
    held = f"; its {len(others)} files, such as {others[0]}, are no PNG" if others else ""
    return (
        f"{folder}: no masks of training views{held}. prepare_masks.py makes them, --object_path names their "
        "folder."
    )
