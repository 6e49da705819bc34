"""Scenes on disk, without the pixels: COLMAP (Gaussian Grouping's layout), Blender (`transforms_train.json`).

What they give, and its conventions, stands in `scene.views`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from arguments import ModelParams
from scene import checks, colmap
from scene.ply import read_point_cloud
from scene.views import BasicPointCloud, CameraInfo, SceneInfo
from utils.errors import UserError
from utils.graphics import fov2focal, quaternion_to_matrix

TEST_EVERY = 8  # --eval: every 8th image, as in 3DGS and Mip-NeRF 360
BLENDER_POINTS = 100_000
BLENDER_EXTENT = 1.3  # the synthetic NeRF scenes fit in [-1.3, 1.3]^3
EXTENT_MARGIN = 1.1  # 3DGS's margin on the radius of the cameras


def read_scene(args: ModelParams) -> SceneInfo:
    """Read the scene at `args.source_path`.

    Raises:
        UserError: it is not there or not complete; the message names file and remedy.
    """
    source = Path(args.source_path)
    checks.check_source(source)
    return read_colmap_scene(args) if (source / "sparse").is_dir() else read_blender_scene(args)


def read_colmap_scene(args: ModelParams) -> SceneInfo:
    """Scene of `sparse/0`, `images/` (`-i`) and `object_mask/` (`--object_path`)."""
    source = Path(args.source_path)
    model = colmap.read_model(source / "sparse" / "0")
    infos = []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        camera = model.cameras[image.camera_id]
        infos.append(
            CameraInfo(
                image_name=_without_suffix(image.name),
                image_path=source / args.images / image.name,
                mask_path=_mask_path(source / args.object_path, _without_suffix(image.name)),
                R=quaternion_to_matrix(image.qvec).T,
                T=image.tvec,
                **vars(camera),
            )
        )
    train, test = _split(infos, args)
    return _scene_info(train, test, BasicPointCloud(model.points, model.colors / 255.0))


def read_blender_scene(args: ModelParams) -> SceneInfo:
    """Scene of `transforms_train.json` and `transforms_test.json`, which trains too without `--eval`."""
    source = Path(args.source_path)
    train = _read_transforms(source / "transforms_train.json", source / args.object_path)
    test = []
    if (source / "transforms_test.json").is_file():
        taken = {info.image_name for info in train}
        # Names repeat between the two files (train/r_0, test/r_0): the masks are the training views'.
        test = [
            info if info.image_name not in taken else _without_mask(info)
            for info in _read_transforms(source / "transforms_test.json", source / args.object_path)
        ]
    if not args.eval:
        train, test = train + test, []
    return _scene_info(train, test, _blender_points(source))


def _split(infos: list[CameraInfo], args: ModelParams) -> tuple[list[CameraInfo], list[CameraInfo]]:
    if args.train_split:
        folder = Path(args.source_path, "images_train")
        if not folder.is_dir():
            raise UserError(
                f"{folder}: not there, but --train_split trains on its names. Make it or drop --train_split."
            )
        names = {
            _without_suffix(str(path.relative_to(folder))) for path in folder.rglob("*") if path.is_file()
        }
        in_training = [info.image_name in names for info in infos]
    else:
        in_training = [not args.eval or index % TEST_EVERY != 0 for index in range(len(infos))]
    train = [info for info, trains in zip(infos, in_training, strict=True) if trains]
    return train, [info for info, trains in zip(infos, in_training, strict=True) if not trains]


def _scene_info(train: list[CameraInfo], test: list[CameraInfo], points: BasicPointCloud) -> SceneInfo:
    checks.check_views(train, test)
    checks.check_points(points.points)
    return SceneInfo(train, test, points, _normalization(train, points.points))


def _normalization(views: list[CameraInfo], points: np.ndarray) -> dict[str, Any]:
    """Centre and radius of the training cameras, the length scale of rates and densification (3DGS)."""
    centers = np.stack([-view.R @ view.T for view in views])  # (V, 3)
    center = centers.mean(axis=0)
    radius = EXTENT_MARGIN * np.linalg.norm(centers - center, axis=1).max()
    if radius < 1e-6:  # one place only: the scale of the scene is all there is
        radius = float(np.median(np.linalg.norm(points - center, axis=1)))
    return {"translate": -center, "radius": float(radius)}


def _without_suffix(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _mask_path(folder: Path, image_name: str) -> Path | None:
    path = folder / f"{image_name}.png"
    return path if path.is_file() else None


def _without_mask(info: CameraInfo) -> CameraInfo:
    return CameraInfo(**{**vars(info), "mask_path": None})


def _read_transforms(path: Path, mask_folder: Path) -> list[CameraInfo]:
    """Views of a Blender JSON: camera-to-world matrices with OpenGL axes, one horizontal field of view."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fov = float(content["camera_angle_x"])
        frames = [
            (str(f["file_path"]), np.array(f["transform_matrix"], dtype=np.float64))
            for f in content["frames"]
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: malformed ({type(error).__name__}: {error}). It must hold camera_angle_x and frames of "
            "file_path and transform_matrix."
        ) from error
    return [
        _blender_view(path, mask_folder, name, matrix, fov)
        for name, matrix in sorted(frames, key=lambda f: f[0])
    ]


def _blender_view(
    path: Path, mask_folder: Path, name: str, camera_to_world: np.ndarray, fov: float
) -> CameraInfo:
    if camera_to_world.shape != (4, 4):
        raise UserError(f"{path}: transform_matrix of {name} must be 4x4, not {camera_to_world.shape}.")
    image_path = path.parent / name
    if image_path.suffix.lower() not in (".png", ".jpg", ".jpeg"):  # the synthetic scenes leave .png out
        image_path = image_path.with_name(image_path.name + ".png")
    width, height = checks.image_size(image_path)
    R = camera_to_world[:3, :3] * np.array([1.0, -1.0, -1.0])  # OpenGL's y and z axes point the other way
    focal = fov2focal(fov, width)
    return CameraInfo(
        image_name=image_path.stem,
        image_path=image_path,
        mask_path=_mask_path(mask_folder, image_path.stem),
        R=R,
        T=-R.T @ camera_to_world[:3, 3],
        width=width,
        height=height,
        fx=focal,
        fy=focal,
        cx=width / 2,
        cy=height / 2,
    )


def _blender_points(source: Path) -> BasicPointCloud:
    """Points of `points3d.ply`, else always the same random ones in the cube that holds synthetic scenes."""
    path = source / "points3d.ply"
    if path.is_file():
        return BasicPointCloud(*read_point_cloud(path))
    generator = np.random.default_rng(0)
    points = generator.uniform(-BLENDER_EXTENT, BLENDER_EXTENT, (BLENDER_POINTS, 3))
    return BasicPointCloud(points, generator.uniform(0.0, 1.0, (BLENDER_POINTS, 3)))
