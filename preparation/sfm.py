"""Camera poses from photographs (structure from motion) by COLMAP, through the package pycolmap.

Features and matches go into a database file, which only ever grows: an interrupted matching goes on where it
was. Models are COLMAP folders; `models/0` has the most photographs. A photo's name is its path below the
folder of the photographs.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arguments import option
from preparation.photos import JPEG_QUALITY
from utils.errors import UserError, some
from utils.files import atomic_folder, check_free_space
from utils.image import image_size
from utils.log import bar

CAMERAS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE")
EXHAUSTIVE_UP_TO = 120  # photographs: 7,140 pairs
KEYFRAMES = 40  # sequential matching compares this many photos all with all, which closes loops
TILE = 14  # photos: pairs are matched in squares of 14 x 14, so that features are read from disk once
MIN_FREE_BYTES = 100 * 2**20  # kept while the database grows: COLMAP aborts the process on a full disk
SPACE_FLAG = "-s (--source_path)"
MIN_MODEL = 3  # photographs; COLMAP's 10 would refuse small scenes
SMALLEST_SHARE = 0.9  # of photographs with a pose, below which advice is given
ADVICE = (
    "What helps: --matching exhaustive; photographs between those that do not join, each sharing two thirds "
    "of its view with the next; sharp photographs of things with texture that stand still; moving sideways "
    "instead of turning on the spot; --camera_per_photo where the zoom changed."
)


@dataclass
class SfmParams:
    """How camera poses are found."""

    camera: str = option("OPENCV", "COLMAP's camera model of the photographs", choices=CAMERAS)
    camera_per_photo: bool = option(False, "the lens or zoom changes: every photo has a camera of its own")
    max_features: int = option(8192, "features per photo", low=100)
    matching: str = option(
        "auto",
        "pairs of photos that are matched: all (exhaustive), neighbours in name order and some distant ones "
        f"(sequential), or auto: all of up to {EXHAUSTIVE_UP_TO} photos that come from no video",
        choices=["auto", "exhaustive", "sequential"],
    )
    overlap: int = option(10, "neighbours on either side in sequential matching", low=1)
    refine_principal_point: bool = option(False, "also estimate the lens's centre (cropped photographs)")
    no_gpu: bool = option(False, "features and matches on the CPU even where pycolmap has CUDA")
    seed: int = option(0, "seed of every random choice", low=0)
    threads: int = option(0, "CPU threads; 0 = all cores", low=0)

    @property
    def num_threads(self) -> int:
        """`threads` as COLMAP counts them."""
        return self.threads or os.cpu_count() or 1


@dataclass(frozen=True)
class SfmReport:
    """What became of the photographs."""

    photos: int
    registered: int
    unregistered: list[str]  # names
    model_sizes: list[int]  # photographs in each model, the first is used
    points: int
    reprojection_error: float  # pixels, mean over points
    track_length: float  # photographs that see a point, mean
    cameras: list[str]

    def lines(self) -> Iterator[str]:
        """The report as text, with what to do where it is poor."""
        yield (
            f"{self.registered} of {self.photos} photographs have a pose. {self.points:,} points, in "
            f"{self.track_length:.1f} photographs each, reprojection error {self.reprojection_error:.2f} "
            "pixels."
        )
        yield from self.cameras
        if self.unregistered:
            yield f"Without a pose and left out: {some(self.unregistered)}"
        if len(self.model_sizes) > 1:
            sizes = ", ".join(map(str, self.model_sizes))
            yield f"Parts that do not join, of {sizes} photographs: the first is used."
        if self.registered < SMALLEST_SHARE * self.photos:
            yield ADVICE


def require_pycolmap() -> Any:
    """The package pycolmap.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise UserError(
            "convert.py needs the package pycolmap. Install it: pip install -e '.[sfm]'"
        ) from error
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value  # else several lines per photo
    return pycolmap


def extract_features(database: Path, photos: Path, names: Sequence[str], options: SfmParams) -> None:
    """Add what `database` lacks of the features of the photos; photos of one size share a camera."""
    colmap = require_pycolmap()
    with _open(database) as opened:
        known = {image.name for image in opened.read_all_images() if opened.exists_keypoints(image.image_id)}
    extraction = colmap.FeatureExtractionOptions(num_threads=options.num_threads)
    extraction.sift.max_num_features = options.max_features
    by_size: dict[tuple[int, int], list[str]] = {}
    for name in names:
        if name not in known:
            by_size.setdefault(image_size(photos / name), []).append(name)
    with bar(names, "Features", initial=len(known)) as progress:
        for size, group in by_size.items():
            for chunk in _chunks(group, 2 * options.num_threads):
                check_free_space(database.parent, MIN_FREE_BYTES, SPACE_FLAG)
                colmap.extract_features(
                    database,
                    photos,
                    chunk,
                    colmap.CameraMode.PER_IMAGE if options.camera_per_photo else colmap.CameraMode.SINGLE,
                    _reader_options(database, size, options),
                    extraction,
                    _device(options),
                )
                progress.update(len(chunk))


def photo_pairs(count: int, options: SfmParams, is_video: bool) -> list[tuple[int, int]]:
    """Pairs i < j of `count` photos in name order to match, in squares of `TILE`.

    Sequential: up to `overlap` apart, powers of two apart, and all pairs of `KEYFRAMES` evenly spaced photos.
    """
    sequential = options.matching == "sequential"
    if options.matching == "auto":
        sequential = is_video or count > EXHAUSTIVE_UP_TO
    pairs = set(itertools.combinations(range(count), 2))
    if sequential:
        step = -(-count // KEYFRAMES)
        pairs = {
            (i, j)
            for i, j in pairs
            if j - i <= options.overlap or (j - i) & (j - i - 1) == 0 or i % step == j % step == 0
        }
    return sorted(pairs, key=lambda pair: (pair[0] // TILE, pair[1] // TILE, *pair))


def match_features(
    database: Path,
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    options: SfmParams,
) -> None:
    """Add what `database` lacks of the verified matches of `pairs`, which count in `names`."""
    colmap = require_pycolmap()
    matching = colmap.FeatureMatchingOptions(num_threads=options.num_threads)
    verification = colmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = options.seed
    pair_list = database.with_suffix(".pairs.txt")
    with bar(pairs, "Matches") as progress:
        for chunk in _chunks(pairs, TILE**2):
            check_free_space(database.parent, MIN_FREE_BYTES, SPACE_FLAG)
            pair_list.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in chunk), encoding="utf-8")
            pairing = colmap.ImportedPairingOptions(match_list_path=pair_list)
            colmap.match_image_pairs(database, matching, pairing, verification, _device(options))
            progress.update(len(chunk))
    pair_list.unlink()


def build_models(database: Path, photos: Path, models: Path, options: SfmParams) -> None:
    """Make the folder `models` of sparse models `0`, `1`, ..., those with more photographs first.

    Raises:
        UserError: no three photographs could be joined.
    """
    colmap = require_pycolmap()
    colmap.set_random_seed(options.seed)
    pipeline = colmap.IncrementalPipelineOptions(
        num_threads=options.num_threads, random_seed=options.seed, min_model_size=MIN_MODEL
    )
    pipeline.mapper.random_seed = pipeline.triangulation.random_seed = options.seed
    pipeline.ba_refine_principal_point = options.refine_principal_point
    with _open(database) as opened:
        photo_count, pair_count = opened.num_images(), opened.num_verified_image_pairs()
    with (
        atomic_folder(models) as temporary,
        bar(what="Poses", total=photo_count) as progress,
    ):
        found = colmap.incremental_mapping(
            database, photos, temporary, pipeline, next_image_callback=lambda: progress.update()
        )
        order = sorted(found, key=lambda key: -found[key].num_reg_images())
        if not order or found[order[0]].num_reg_images() < MIN_MODEL:
            raise UserError(
                f"{photos}: no camera poses. {pair_count} pairs of the {photo_count} photographs show the "
                f"same things, and none gives a start. {ADVICE}"
            )
        for key in order:
            (temporary / str(key)).rename(temporary / f"model_{key}")
        for rank, key in enumerate(order):
            (temporary / f"model_{key}").rename(temporary / str(rank))


def undistort(model: Path, photos: Path, target: Path, max_size: int) -> None:
    """Fill `target` with `images/` and `sparse/` of pinhole cameras; no edge exceeds `max_size` (0 = any).

    Raises:
        UserError: photographs of the model are missing or of another size than its cameras.
    """
    colmap = require_pycolmap()
    reconstruction = read_reconstruction(model)
    for image in reconstruction.images.values():
        _check_photo(photos / image.name, model, image.camera)
    undistortion = colmap.UndistortCameraOptions(max_image_size=max_size or -1)
    colmap.undistort_images(
        target, model, photos, undistort_options=undistortion, jpeg_quality=JPEG_QUALITY, num_threads=-1
    )


def read_reconstruction(model: Path) -> Any:
    """COLMAP's model of any camera, with tracks.

    Raises:
        UserError: it is not there or not whole.
    """
    colmap = require_pycolmap()
    try:
        return colmap.Reconstruction(model)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{model}: no COLMAP model (cameras, images, points3D as .bin or .txt). --model names its folder."
        ) from error


def report(models: Sequence[Path], names: Sequence[str]) -> SfmReport:
    """Report on the photographs `names` and the first of `models`."""
    used, *others = [read_reconstruction(model) for model in models]
    registered = {image.name for image in used.images.values() if image.has_pose}
    cameras = sorted(used.cameras.values(), key=lambda camera: camera.camera_id)
    return SfmReport(
        photos=len(names),
        registered=len(registered),
        unregistered=[name for name in names if name not in registered],
        model_sizes=[model.num_reg_images() for model in (used, *others)],
        points=used.num_points3D(),
        reprojection_error=used.compute_mean_reprojection_error(),
        track_length=used.compute_mean_track_length(),
        cameras=[f"{c.model_name} {c.width}x{c.height}, {_parameters(c)}" for c in cameras],
    )


def _reader_options(database: Path, size: tuple[int, int], options: SfmParams) -> Any:
    """Options that let photos of one size go on with the camera that the database has for them."""
    colmap = require_pycolmap()
    reader = colmap.ImageReaderOptions(camera_model=options.camera)
    if not options.camera_per_photo:
        with _open(database) as opened:
            same = [c.camera_id for c in opened.read_all_cameras() if (c.width, c.height) == size]
        if same:
            reader.existing_camera_id = same[0]
    return reader


def _open(database: Path) -> Any:
    try:
        return require_pycolmap().Database.open(str(database))
    except RuntimeError as error:
        raise UserError(
            f"{database}: cannot be opened. Is the disk full? If not, delete the file: it is made again."
        ) from error


def _device(options: SfmParams) -> Any:
    colmap = require_pycolmap()
    return colmap.Device.cpu if options.no_gpu else colmap.Device.auto


def _check_photo(path: Path, model: Path, camera: Any) -> None:
    if not path.is_file():
        raise UserError(f"{path}: in the model {model} but not there. Name the folder with --photos.")
    width, height = image_size(path)
    if (width, height) != (camera.width, camera.height):
        raise UserError(
            f"{path}: {width}x{height}, but its camera in {model} is {camera.width}x{camera.height}. Use the "
            "photographs from which the model was made."
        )


def _parameters(camera: Any) -> str:
    names = camera.params_info.split(", ")
    return ", ".join(f"{name} {value:.4g}" for name, value in zip(names, camera.params, strict=True))


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
