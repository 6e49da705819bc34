"""Photographs or a video into a scene, stage by stage; a stage that is done is skipped.

```
<scene>/input/                 photographs, or the frames of the video
<scene>/distorted/photos/      upright photographs of the size that is used
<scene>/distorted/database.db  features and matches
<scene>/distorted/sparse/<k>/  models with distortion, 0 has the most photographs
<scene>/images/, sparse/0/     what trains: undistorted images and their model; images_2, images_4, images_8
```
`distorted/convert.json` holds a key for every product: what it was made from. A product whose key differs is
made again and replaced when the new one is whole; what convert.py did not make is never touched.
"""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arguments import option
from preparation import photos, sfm
from preparation.sfm import SfmParams, SfmReport
from preparation.video import extract_frames
from utils.errors import UserError
from utils.files import check_free_space, replace_folder
from utils.json_files import read_json, write_json
from utils.log import logger

RESULTS = ("images", "sparse/0")  # what trains
FACTORS = (2, 4, 8)  # --resize
BYTES_PER_PHOTO = 4 * 2**20  # its features, matches and keypoints, at most
DISK_FULL = ("disk is full", "disk I/O error", "No space left")  # as SQLite and COLMAP word it


@dataclass
class ConvertParams:
    """What is converted, and into what."""

    source_path: str = option("", "folder of the scene to make", flags=["-s"])
    photos: str = option("", "folder of photographs, or a video (default: input/ in the scene)")
    frames: int = option(150, "frames taken from a video, at most", low=3)
    max_size: int = option(1600, "longest edge of the images in pixels; larger ones shrink; 0 = any", low=0)
    model: str = option("", "COLMAP model of the photographs, with distortion: only undistort them")
    skip_matching: bool = option(False, "the same with the model that is in distorted/sparse/0")
    resize: bool = option(False, "also make images_2, images_4 and images_8")
    json: str = option("", "also write the report here")
    quiet: bool = option(False, "print errors only")


class Stages:
    """The products of a scene folder and the keys of what they were made from."""

    def __init__(self, scene: Path) -> None:
        self.scene = scene
        self.record = scene / "distorted" / "convert.json"
        made_before = self.record.is_file()
        self.keys: dict[str, str] = read_json(self.record, "Delete it.") if made_before else {}

    def run(self, products: Sequence[str], key: str, make: Callable[[], None]) -> None:
        """Call `make`, which writes `products` (paths in the scene), unless they are there under this key.

        Raises:
            UserError: a product is there that convert.py did not make.
        """
        there = self.check(products)
        if len(there) == len(products) and all(self.keys[product] == key for product in products):
            logger.info("%s: done before", products[0])
            return
        self.set(dict.fromkeys(products, "unfinished"))
        make()
        self.set(dict.fromkeys(products, key))
        logger.info("%s: done", products[0])

    def check(self, products: Sequence[str]) -> list[str]:
        """Those of `products` that are there.

        Raises: as `run`.
        """
        there = [product for product in products if (self.scene / product).exists()]
        for product in there:
            if product not in self.keys:
                raise UserError(
                    f"{self.scene / product}: there already, and not made by convert.py. Choose another -s "
                    "or move it; photographs belong into input/."
                )
        return there

    def set(self, keys: dict[str, str]) -> None:
        """Record `keys` of products."""
        self.keys.update(keys)
        write_json(self.record, self.keys)


def convert(params: ConvertParams, options: SfmParams) -> SfmReport:
    """Make the scene; return what became of the photographs.

    Raises:
        UserError: with the file and what to do; what is done stays for the next call.
    """
    sfm.require_pycolmap()
    if not params.source_path:
        raise UserError("-s (--source_path) is required: the folder of the scene to make.")
    with _disk_full_told(Path(params.source_path)):
        return _Conversion(params, options).run()


class _Conversion:
    """One call of `convert`. `key` is always that of the latest product, on which the next depends."""

    def __init__(self, params: ConvertParams, options: SfmParams) -> None:
        self.params, self.options = params, options
        self.scene = Path(params.source_path)
        self.work = self.scene / "distorted"
        self.stages = Stages(self.scene)
        self.is_video = Path(params.photos).is_file()

    def run(self) -> SfmReport:
        """All stages."""
        self.stages.check([*RESULTS, *(f"images_{factor}" for factor in FACTORS if self.params.resize)])
        source = self.photographs()
        names = photos.list_photos(source)
        sizes = [(source / name).stat().st_size for name in names]
        needed = sfm.MIN_FREE_BYTES + 3 * sum(sizes) + BYTES_PER_PHOTO * len(names)
        check_free_space(self.scene, needed, sfm.SPACE_FLAG)
        self.key = _key([names, sizes])
        if self.params.model or self.params.skip_matching:
            models = [self.given_model(source, names)]
            self.make_images(models[0], source, self.params.max_size)
        else:
            folder = self.work / "photos"
            names = self.upright_photos(source, names)
            self.find_matches(folder, names)
            models = self.find_poses(folder)
            self.make_images(models[0], folder, 0)
        if self.params.resize:
            for factor in FACTORS:
                self.make_smaller(factor)
        return sfm.report(models, names)

    def photographs(self) -> Path:
        """Folder of the photographs; the frames of a video are extracted into it."""
        source, folder = Path(self.params.photos), self.scene / "input"
        if self.is_video:
            frames, max_size = self.params.frames, self.params.max_size
            self.stages.run(
                ["input"],
                _key([source.name, source.stat().st_size, frames, max_size]),
                lambda: extract_frames(source, folder, frames, max_size),
            )
        elif self.params.photos:
            if self.scene.resolve().is_relative_to(source.resolve()):  # whose pictures would count as well
                raise UserError(
                    f"{self.scene}: the scene lies in the folder of its photographs, {source}. Put the "
                    "photographs into its input/ and leave out --photos, or choose another -s."
                )
            return source
        elif not folder.is_dir():
            raise UserError(
                f"{folder}: not there. Put the photographs into it, or name their folder or a video with "
                "--photos."
            )
        return folder

    def upright_photos(self, source: Path, names: Sequence[str]) -> list[str]:
        """Names of the photographs that COLMAP gets."""
        folder, max_size = self.work / "photos", self.params.max_size
        self.key = _key([self.key, max_size])
        self.stages.run(
            ["distorted/photos"],
            self.key,
            lambda: photos.copy_photos(source, names, folder, max_size),
        )
        made = photos.list_photos(folder)
        if len(made) != len(names):
            raise UserError(
                f"{folder}: holds {len(made)} photographs, {source} {len(names)}. Delete {folder} and run "
                "the same command again."
            )
        return made

    def find_matches(self, folder: Path, names: Sequence[str]) -> None:
        """Fill the database."""
        options = self.options
        features = _key([self.key, options.camera, options.camera_per_photo, options.max_features])
        pairs = sfm.photo_pairs(len(names), options, self.is_video)

        def make() -> None:
            part = self.open_database(features)
            sfm.extract_features(part, folder, names, options)
            sfm.match_features(part, names, pairs, options)
            os.replace(part, self.work / "database.db")

        self.key = _key([features, pairs, options.seed])
        self.stages.run(["distorted/database.db"], self.key, make)

    def open_database(self, features: str) -> Path:
        """The database under the name that it has while it grows; what is in it has the same features."""
        part, database = self.work / "database.part.db", self.work / "database.db"
        if self.stages.keys.get("features") != features:
            for path in self.work.glob("database.part.db*"):  # SQLite keeps a journal beside it
                path.unlink()
            self.stages.set({"features": features})
        elif database.exists():
            os.replace(database, part)
        return part

    def find_poses(self, folder: Path) -> list[Path]:
        """Sparse models, the one with the most photographs first."""
        models = self.work / "sparse"
        self.key = _key([self.key, self.options.refine_principal_point])
        self.stages.run(
            ["distorted/sparse"],
            self.key,
            lambda: sfm.build_models(self.work / "database.db", folder, models, self.options),
        )
        return sorted(models.iterdir(), key=lambda path: int(path.name))

    def given_model(self, source: Path, names: Sequence[str]) -> Path:
        """The user's model, and a check of the photographs that COLMAP will read."""
        model = Path(self.params.model or self.work / "sparse" / "0")
        photos.check_photos(source, names)
        sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(model.glob("*.*"))]
        self.key = _key([self.key, sums, self.params.max_size])
        return model

    def make_images(self, model: Path, folder: Path, max_size: int) -> None:
        """Undistort."""

        def make() -> None:
            with tempfile.TemporaryDirectory(dir=self.work) as temporary:
                sfm.undistort(model, folder, Path(temporary), max_size)
                (self.scene / "sparse").mkdir(exist_ok=True)
                replace_folder(Path(temporary, "images"), self.scene / "images")
                replace_folder(Path(temporary, "sparse"), self.scene / "sparse" / "0")

        self.stages.run(RESULTS, self.key, make)

    def make_smaller(self, factor: int) -> None:
        """One of images_2, images_4, images_8."""
        source, folder = self.scene / "images", self.scene / f"images_{factor}"
        self.stages.run(
            [folder.name],
            self.key,
            lambda: photos.shrink_photos(source, folder, factor),
        )


def _key(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@contextmanager
def _disk_full_told(scene: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not (full or any(words in str(error) for words in DISK_FULL)):
            raise
        raise UserError(
            f"{scene}: the disk is full. Free some space and run the same command again: what is done stays."
        ) from error
