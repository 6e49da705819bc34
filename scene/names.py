"""Which file belongs to which view: pictures and masks, by their names.

A view's name is that of its picture below the image folder, with `/` and without suffix; it may hold dots and
folders, and is NFC, whichever of Unicode's forms a disk or a zip has. Files that a system leaves beside
data (`._x`, `.DS_Store`, `__MACOSX/`) are never looked at.
"""

import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from scene.views import CameraInfo

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")  # the first that is there is taken
MASK = ".png"
MASK_ENDINGS = (".mask", "_mask")  # image.jpg.mask.png
SYSTEM_FOLDER = "__MACOSX"


def without_suffix(name: str) -> str:
    """The name of a picture's view and mask; folders and dots in it stay."""
    path = PurePosixPath(normalize("NFC", name.replace("\\", "/")))
    return path.with_suffix("").as_posix()


def without_folders(views: Sequence[str]) -> list[str]:
    """Names of views without their folders, if these still tell the views apart; else as they are."""
    short = [PurePosixPath(view).name for view in views]
    return short if len(set(short)) == len(short) else list(views)


def is_there(path: Path) -> bool:
    """Whether a file that somebody else names is there; names that no disk can hold are not."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def visible_files(folder: Path) -> Iterator[Path]:
    """All files below `folder` in the order of their paths, but hidden ones and those of hidden folders."""
    yield from sorted(_visible_files(folder, frozenset()))


def _visible_files(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """In any order; linked folders are followed, unless they lead to one of those `above`."""
    above |= {os.path.realpath(folder)}
    for path in _entries(folder):
        if path.name.startswith(".") or path.name == SYSTEM_FOLDER:
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and os.path.realpath(path) not in above:
            yield from _visible_files(path, above)


class Pictures:
    """Finds the pictures that a scene names: `found` lists those that are there under another suffix."""

    def __init__(self) -> None:
        self.found: list[tuple[Path, Path]] = []  # as named, as found
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def find(self, named: Path) -> Path:
        """The picture itself, or one of its name under another suffix; `named` if there is none."""
        if is_there(named):
            return named
        known = named.suffix.lower() in PICTURES
        stem = normalize("NFC", named.stem if known else named.name).lower()
        there = self._by_stem(named.parent).get(stem, [])
        if not there:
            return named
        best = min(there, key=lambda path: (PICTURES.index(path.suffix.lower()), path.name))
        if known and normalize("NFC", best.name) != normalize("NFC", named.name):
            self.found.append((named, best))
        return best

    def _by_stem(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._folders:
            stems = self._folders[folder] = {}
            for path in _entries(folder):
                if path.suffix.lower() in PICTURES and not path.name.startswith("."):
                    stems.setdefault(normalize("NFC", path.stem).lower(), []).append(path)
        return self._folders[folder]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (OSError, ValueError):
        return []


def match_masks(folder: Path, views: Sequence[CameraInfo]) -> tuple[dict[str, Path], list[Path]]:
    """View name -> its mask in `folder`, and the PNG files there that belong to no view.

    A mask is `<view>.png`, or `<picture>.png` with the picture's suffix (`x.jpg.png`), or either with `.mask`
    before `.png`, which counts less. Where none fits by its path below the folder, the file's name alone
    decides, if it is that of one view and of one file.
    """
    files = [path for path in visible_files(folder) if path.suffix.lower() == MASK] if folder.is_dir() else []
    stems = {path: without_suffix(path.relative_to(folder).as_posix()) for path in files}
    wanted = {key for view in views for key in _keys(view)}
    by_key: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: stems[path] not in wanted):
        by_key.setdefault(_key(stems[path], wanted), path)
    masks = {view.image_name: by_key[key] for view in views for key in _keys(view) if key in by_key}
    if not masks:
        masks = _by_name_alone(files, views)
    taken = set(masks.values())
    return masks, [path for path in files if path not in taken]


def _keys(view: CameraInfo) -> tuple[str, str]:
    """Names of a view's mask, the one that counts most last."""
    return view.image_name + view.image_path.suffix, view.image_name


def _key(stem: str, wanted: Container[str]) -> str:
    """What a mask is called after: its own name, if a view has it, else that without an ending."""
    if stem in wanted:
        return stem
    return next((stem.removesuffix(end) for end in MASK_ENDINGS if stem.endswith(end)), stem)


def _by_name_alone(files: Sequence[Path], views: Sequence[CameraInfo]) -> dict[str, Path]:
    wanted: dict[str, list[str]] = {}
    for view in views:
        for key in set(_keys(view)):
            wanted.setdefault(PurePosixPath(key).name, []).append(view.image_name)
    there: dict[str, list[Path]] = {}
    for path in files:
        there.setdefault(_key(without_suffix(path.name), wanted), []).append(path)
    return {
        names[0]: there[key][0]
        for key, names in wanted.items()
        if len(names) == 1 and len(there.get(key, ())) == 1
    }
