"""The photographs of a scene, before and after its camera poses are known.

Naming contract: a photo's `name` is its path below the folder of the photographs, with `/`. It names the view
and, without suffix, the mask, from here to the trained run.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from scene.names import PICTURES, visible_files, without_suffix
from utils.errors import UserError, some
from utils.files import atomic_folder
from utils.image import is_deep, open_image, to_rgb
from utils.log import bar

SUFFIXES = (*PICTURES, ".heic")
AS_THEY_ARE = (".jpg", ".jpeg", ".png")  # formats that every reader of scenes knows; others become PNG
MIN_PHOTOS = 3  # two give a pair, but no point that a third view confirms
JPEG_QUALITY = 95  # no loss that training could see
ORIENTATION = 0x0112  # EXIF: how the camera was held
THREADS = min(8, os.cpu_count() or 1)  # PIL decodes outside Python's lock


def list_photos(folder: Path) -> list[str]:
    """Names of all photographs below `folder`, sorted.

    Raises:
        UserError: no folder, fewer than three, or two that would share a mask.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. --photos takes a folder of photographs or a video.")
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in visible_files(folder)
        if path.suffix.lower() in SUFFIXES
    )
    if len(names) < MIN_PHOTOS:
        raise UserError(
            f"{folder}: {len(names)} photographs ({' '.join(SUFFIXES)}), at least {MIN_PHOTOS} are needed. "
            "Some tens that overlap make a scene."
        )
    stems = Counter(without_suffix(_safe(name)) for name in names)
    double = [name for name in names if stems[without_suffix(_safe(name))] > 1]
    if double:
        raise UserError(
            f"{folder}: {some(double)} differ in suffix or spaces alone and would share a mask. Rename one."
        )
    return names


def copy_photos(source: Path, names: Sequence[str], target: Path, max_size: int) -> None:
    """Make the folder `target` of upright photographs no longer than `max_size` (0 = any size).

    A photo that is so already is linked, not written again. All are decoded in full. White space in names
    becomes `_`, because COLMAP's lists of pairs are split at it.

    Raises:
        UserError: photos that cannot be read, all of them named.
    """
    with atomic_folder(target) as temporary:
        _for_each(names, partial(_copy_photo, source, temporary, max_size), "Photographs")


def check_photos(source: Path, names: Sequence[str]) -> None:
    """Decode every photo; raise UserError naming all that cannot be read."""
    _for_each(names, partial(_decode, source), "Photographs")


def shrink_photos(source: Path, target: Path, factor: int) -> None:
    """Make the folder `target` of the photos of `source` at 1/`factor` of their size, sides rounded."""
    names = list_photos(source)
    with atomic_folder(target) as temporary:
        _for_each(names, partial(_shrink, source, temporary, factor), target.name)


def _for_each(names: Sequence[str], work: Callable[[str], None], what: str) -> None:
    """Call `work` on every name, in threads; raise the first UserError and name all that had one."""
    with ThreadPoolExecutor(THREADS) as pool:
        tried = pool.map(partial(_problem, work), names)
        problems = list(bar(tried, what, len(names)))
    bad = [(name, problem) for name, problem in zip(names, problems, strict=True) if problem]
    if bad:
        raise UserError(
            f"{bad[0][1]} {len(bad)} such photographs: {some([name for name, _ in bad])}. Mend them or move "
            "them out of the folder; HEIC must be exported as JPEG."
        )


def _problem(work: Callable[[str], None], name: str) -> str:
    try:
        work(name)
    except UserError as error:
        return str(error)
    return ""


def _decode(source: Path, name: str) -> None:
    with open_image(source / name) as file:
        file.load()


def _copy_photo(source: Path, target: Path, max_size: int, name: str) -> None:
    with open_image(source / name) as file:
        size, upright = file.size, file.getexif().get(ORIENTATION, 1) == 1
        as_it_is = file.mode in ("RGB", "L") and not is_deep(file)
        exif = file.getexif()
        photo = file if as_it_is else to_rgb(file)
        if max_size and max(size) > max_size:
            photo.thumbnail((max_size, max_size), Image.Resampling.LANCZOS)
        photo.getexif().update(exif)
        photo = ImageOps.exif_transpose(photo)  # decodes
    path = target / _safe(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = path.suffix.lower() in AS_THEY_ARE
    if known and upright and photo.size == size and as_it_is:
        _link(source / name, path)
    else:
        _save(photo.convert("RGB"), path if known else path.with_suffix(".png"))


def _shrink(source: Path, target: Path, factor: int, name: str) -> None:
    with open_image(source / name) as file:
        width, height = (max(1, round(edge / factor)) for edge in file.size)
        small = to_rgb(file).resize((width, height), Image.Resampling.LANCZOS)
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    _save(small, target / name)


def _safe(name: str) -> str:
    return re.sub(r"\s", "_", name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(source), target)  # a relative link would lead elsewhere from there
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _save(photo: Image.Image, path: Path) -> None:
    """Write a photo with its EXIF, where the mapper finds the focal length."""
    photo.save(path, quality=JPEG_QUALITY, exif=photo.getexif())
