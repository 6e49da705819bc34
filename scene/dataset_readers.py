"""Scenes on disk, without the pixels: COLMAP (Gaussian Grouping's layout), or cameras as JSON.

Poses come from the scene's folder, or from a file elsewhere (`--cameras`), and may be brought into
nerfstudio's frame (`--dataparser`).

What they give, and its conventions, stands in `scene.views`. Where files leave a choice (two models, a
picture under another suffix, coordinates that float32 cannot hold), it is made here and told in
`SceneInfo.notes`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from arguments import ModelParams
from scene import checks, colmap
from scene.cameras_json import read_cameras_json
from scene.dataparser import Similarity, read_dataparser
from scene.names import Pictures, is_there, match_masks, visible_files, without_suffix
from scene.ply import read_point_cloud
from scene.transforms import read_transforms
from scene.views import BasicPointCloud, CameraInfo, SceneInfo
from utils.errors import UserError, some
from utils.graphics import quaternion_to_matrix
from utils.json_files import read_json

TEST_EVERY = 8  # --eval: every 8th image, as in 3DGS and Mip-NeRF 360
EXTENT_MARGIN = 1.1  # 3DGS's margin on the radius of the cameras
# Radii of the scene between it and the origin. Float32 then has steps of 1.2e-5 radii, a few hundredths of a
# pixel and seven times the last learning rate of positions; farther off, renders get worse.
FAR = 100.0
MODEL_ROOTS = ("sparse", "colmap/sparse")  # COLMAP's, nerfstudio's
CLOUDS = ("points3d", "sparse_pc", "sparse_points", "pointcloud", "point_cloud", "points", "pcd", "input")


def read_scene(args: ModelParams) -> SceneInfo:
    """Read the scene at `args.source_path`.

    Raises:
        UserError: it is not there or not complete; the message names file and remedy.
    """
    source = Path(args.source_path)
    if not source.name or not source.is_dir():
        raise UserError(f"{source}: no such folder. -s (--source_path) takes the folder of a scene.")
    if args.cameras:
        return read_given_cameras(args, Path(args.cameras))
    models = _models(source)
    if models:
        return read_colmap_scene(args, models)
    jsons = [source / name for name in ("transforms_train.json", "transforms.json")]
    path = next((path for path in jsons if path.is_file()), None)
    if path is None:
        raise UserError(
            f"{source}: no COLMAP model in sparse/0 (cameras, images and points3D, .bin or .txt), nor "
            "transforms_train.json. convert.py makes a scene of photographs."
        )
    return read_json_scene(args, path)


def read_colmap_scene(args: ModelParams, models: Sequence[Path]) -> SceneInfo:
    """Scene of the largest of `models`, `images/` (`-i`) and `object_mask/` (`--object_path`)."""
    source, pictures = Path(args.source_path), Pictures()
    folder, notes = _largest_model(models)
    model = colmap.read_model(folder)
    _check_names([image.name for image in model.images.values()], folder)
    infos = [
        CameraInfo(
            image_name=without_suffix(image.name),
            image_path=pictures.find(source / args.images / image.name.replace("\\", "/")),
            mask_path=None,
            R=quaternion_to_matrix(image.qvec).T,
            T=image.tvec,
            **vars(model.cameras[image.camera_id]),
        )
        for image in sorted(model.images.values(), key=lambda image: image.name)
    ]
    train, test = _with_masks(args, *_split(infos, args, notes))
    points = BasicPointCloud(model.points, model.colors / 255.0)
    notes += _told(pictures)
    if (source / "transforms_train.json").is_file():
        notes.append(f"{source / 'transforms_train.json'} is not read, because {folder} is there.")
    frame = read_dataparser(Path(args.dataparser)) if args.dataparser else None
    return _scene_info(train, test, points, str(folder / "points3D"), folder, notes, frame)


def read_json_scene(args: ModelParams, path: Path) -> SceneInfo:
    """Scene of `transforms_train.json` and `transforms_test.json`, or of `transforms.json` alone.

    The views of `transforms_test.json` train, too, without `--eval`. Where both files name a view alike, as
    Blender's do, the test views are called `test/<name>`.
    """
    source, pictures, notes = path.parent, Pictures(), list[str]()
    train, content = read_transforms(path, pictures)
    test: list[CameraInfo] = []
    test_path = source / "transforms_test.json"
    if path.name == "transforms.json" or args.train_split:
        train, test = _with_masks(args, *_split_of_json(train, args, path, content, notes))
    else:
        if test_path.is_file():
            test = read_transforms(test_path, pictures)[0]
        if {view.image_name for view in train} & {view.image_name for view in test}:
            test = [replace(view, image_name=f"test/{view.image_name}") for view in test]
        train, test = _with_masks(args, train, test)
        if not args.eval:
            train, test = train + test, []
    points, cloud = _cloud(source, content)
    notes += _told(pictures) + _own_pictures(args, path)
    frame = read_dataparser(Path(args.dataparser), content) if args.dataparser else None
    return _scene_info(train, test, points, cloud, None, notes, frame)


def read_given_cameras(args: ModelParams, path: Path) -> SceneInfo:
    """Scene of the pictures and masks in the folder of a scene, and of the poses in a file: 3DGS's
    `cameras.json`, or a `transforms.json`. Points are a PLY beside that file.
    """
    source, pictures, notes = Path(args.source_path), Pictures(), list[str]()
    content = read_json(path, "--cameras takes 3DGS's cameras.json or a transforms.json.")
    if isinstance(content, list):
        views, content = read_cameras_json(path, content, source / args.images, pictures), {}
    else:
        views, content = read_transforms(path, pictures, source)
        notes += _own_pictures(args, path)
    train, test = _with_masks(args, *_split_of_json(views, args, path, content, notes))
    points, cloud = _cloud(path.parent, content)
    notes += _told(pictures)
    frame = read_dataparser(Path(args.dataparser), content) if args.dataparser else None
    return _scene_info(train, test, points, cloud, None, notes, frame)


def _models(source: Path) -> list[Path]:
    """Folders of COLMAP's models, 0 first; where one is made of several parts, COLMAP numbers them."""
    for root in (source / name for name in MODEL_ROOTS):
        folders = sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))
        folders.sort(key=lambda path: int(path.name) if path.name.isdecimal() else len(folders))
        found = [path for path in (*folders, root) if any(colmap.part_path(path, p) for p in colmap.PARTS)]
        if found:
            return found
    return []


def _check_names(pictures: Sequence[str], model: Path) -> None:
    """Raise unless every picture of a model has a view's name of its own."""
    first: dict[str, str] = {}
    for name in pictures:
        other = first.setdefault(without_suffix(name), name)
        if other != name:
            raise UserError(
                f"{model}: the images {other} and {name} differ in suffix alone and would share a mask. "
                "Rename one of them and make the model again, or leave one out."
            )


def _largest_model(models: Sequence[Path]) -> tuple[Path, list[str]]:
    """The model with the most images, of several the first, and what to say about the choice."""
    counts = [colmap.count_images(model) for model in models] if len(models) > 1 else [0]
    best = models[counts.index(max(counts))]
    missing = [part for part in colmap.PARTS if colmap.part_path(best, part) is None]
    if missing:
        raise UserError(
            f"{best}: {' and '.join(missing)} (.bin or .txt) missing. Copy COLMAP's undistorted sparse "
            "model into it."
        )
    notes = []
    if len(models) > 1:
        sizes = ", ".join(f"{model.name} has {count}" for model, count in zip(models, counts, strict=True))
        notes.append(
            f"{best.parent}: several models, which do not join ({sizes} images): {best} is used. Leave only "
            "the one that you want, as sparse/0."
        )
    if all((best / f"{part}{suffix}").is_file() for part in colmap.PARTS for suffix in colmap.SUFFIXES):
        notes.append(f"{best}: its .bin files are read, the .txt files beside them are not.")
    return best, notes


def _split(
    infos: list[CameraInfo], args: ModelParams, notes: list[str]
) -> tuple[list[CameraInfo], list[CameraInfo]]:
    if args.train_split:
        folder = Path(args.source_path, "images_train")
        if not folder.is_dir():
            raise UserError(
                f"{folder}: not there, but --train_split trains on its names. Make it or drop --train_split."
            )
        names = {without_suffix(path.relative_to(folder).as_posix()) for path in visible_files(folder)}
        in_training = [info.image_name in names for info in infos]
        unknown = sorted(names - {info.image_name for info in infos})
        if unknown and any(in_training):
            notes.append(f"{folder}: names without a pose, which are not used: {some(unknown)}.")
    else:
        in_training = [not args.eval or index % TEST_EVERY != 0 for index in range(len(infos))]
    train = [info for info, trains in zip(infos, in_training, strict=True) if trains]
    return train, [info for info, trains in zip(infos, in_training, strict=True) if not trains]


def _split_of_json(
    infos: list[CameraInfo], args: ModelParams, path: Path, content: dict[str, Any], notes: list[str]
) -> tuple[list[CameraInfo], list[CameraInfo]]:
    """`_split`, but under --eval by nerfstudio's `train_filenames` if the file has them: the rest tests."""
    if args.train_split or not args.eval or "train_filenames" not in content:
        return _split(infos, args, notes)
    names = content["train_filenames"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: train_filenames must be a list of paths of pictures.")
    source, pictures = Path(args.source_path), Pictures()
    chosen = {pictures.find(source / name.replace("\\", "/")) for name in names}
    return (
        [info for info in infos if info.image_path in chosen],
        [info for info in infos if info.image_path not in chosen],
    )


def _own_pictures(args: ModelParams, path: Path) -> list[str]:
    """What to say where a folder of images was named that has no effect."""
    if args.images == ModelParams().images:
        return []
    return [f"-i {args.images} has no effect: {path} names its pictures with their folders."]


def _scene_info(
    train: list[CameraInfo],
    test: list[CameraInfo],
    points: BasicPointCloud,
    cloud: str | None,
    model_folder: Path | None,
    notes: list[str],
    frame: Similarity | None,
) -> SceneInfo:
    """Checks, and the scene's own frame; `cloud` is what the points are called in messages, None: random.

    `frame`: where all is moved first.
    """
    checks.check_views(train, test)
    checks.check_points(points.points, cloud or "random points")
    if frame is not None:
        train, test = ([frame.view(view) for view in views] for views in (train, test))
        points = BasicPointCloud(frame.points(points.points), points.colors)
    origin = _origin([*train, *test], points.points, notes)
    if origin.any():
        train, test = (
            [replace(view, T=view.T + view.R.T @ origin) for view in views] for views in (train, test)
        )
        points = BasicPointCloud(points.points - origin, points.colors)
    size = _normalization(train, points.points)
    return SceneInfo(train, test, points, cloud is not None, size, origin, model_folder, notes)


def _with_masks(
    args: ModelParams, train: list[CameraInfo], test: list[CameraInfo]
) -> tuple[list[CameraInfo], list[CameraInfo]]:
    """The views with their masks."""
    masks, _ = match_masks(Path(args.source_path, args.object_path), [*train, *test])
    with_masks = [replace(view, mask_path=masks.get(view.image_name)) for view in (*train, *test)]
    return with_masks[: len(train)], with_masks[len(train) :]


def _origin(views: list[CameraInfo], points: np.ndarray, notes: list[str]) -> np.ndarray:
    """Where the scene's own frame begins: 0, or near its cameras where float32 could not tell them apart."""
    size = _normalization(views, points)
    center = -size["translate"]
    distance = float(np.linalg.norm(center))
    if distance <= FAR * size["radius"]:
        return np.zeros(3)
    step = 10.0 ** (math.floor(math.log10(max(1.0, 10 * size["radius"]))))  # a round number, not far off
    origin = np.rint(center / step) * step
    place = ", ".join(f"{value:,.0f}" for value in origin)
    notes.append(
        f"coordinates around ({place}) in a scene of radius {size['radius']:.3g}, where float32 has steps of "
        f"{np.spacing(np.float32(distance)):.2g}: it is trained around its middle. What is written keeps "
        "your coordinates, x y z of the PLY as double."
    )
    return origin


def _normalization(views: list[CameraInfo], points: np.ndarray) -> dict[str, Any]:
    """Centre and radius of the cameras, the length scale of rates and densification (3DGS)."""
    centers = np.stack([-view.R @ view.T for view in views])  # (V, 3)
    center = centers.mean(axis=0)
    radius = EXTENT_MARGIN * np.linalg.norm(centers - center, axis=1).max()
    if radius < 1e-6:  # one place only: the scale of the scene is all there is
        radius = float(np.median(np.linalg.norm(points - center, axis=1)))
    return {"translate": -center, "radius": float(radius)}


def _told(pictures: Pictures) -> list[str]:
    if not pictures.found:
        return []
    named, found = pictures.found[0]
    return [f"{len(pictures.found)} pictures are there under another suffix: {found} for {named.name}."]


def _cloud(source: Path, content: dict[str, Any]) -> tuple[BasicPointCloud, str | None]:
    """The point cloud of a scene of JSON and its name, else always the same random points and None.

    It is what `ply_file_path` says, else a PLY under one of the usual names, else the only one there is.
    """
    named = content.get("ply_file_path")
    if named is not None and (not isinstance(named, str) or not is_there(source / named)):
        raise UserError(
            f"{source}: ply_file_path of the JSON is {named!r}, which is not there. Copy it there."
        )
    files = [
        path for path in sorted(source.glob("*")) if path.suffix.lower() == ".ply" and path.name[0] != "."
    ]
    usual = sorted(
        (path for path in files if path.stem.lower() in CLOUDS), key=lambda p: CLOUDS.index(p.stem.lower())
    )
    path = source / named if named else next(iter(usual or (files if len(files) == 1 else [])), None)
    if path is not None:
        return BasicPointCloud(*read_point_cloud(path)), str(path)
    generator = np.random.default_rng(0)
    points = generator.uniform(-checks.RANDOM_EXTENT, checks.RANDOM_EXTENT, (checks.RANDOM_POINTS, 3))
    return BasicPointCloud(points, generator.uniform(0.0, 1.0, points.shape)), None
