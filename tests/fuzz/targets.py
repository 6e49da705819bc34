"""The readers of files that come from elsewhere, each with some small files that it reads.

A reader is right if it returns, or raises UserError. It takes at most `multiple` times the file's size of
Python's and NumPy's memory, and 2 MiB beside (modules that are loaded, buffers).
"""

import io
import json
import logging
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import plyfile
import torch
from PIL import Image

from arguments import DeviceParams, ModelParams, parse_with_run
from arguments.cfg_args import read_cfg_args
from gradiseg import checkpoint
from gradiseg.classifier import load_conv
from gradiseg.evaluation.ids import read_ids
from gradiseg.evaluation.masks import read_mask
from scene.colmap import (
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    read_model,
    read_observations,
    read_point_ids,
)
from scene.dataset_readers import read_scene
from scene.masks import read_id_map
from scene.ply import read_ply, read_point_cloud, write_ply
from tests.colmap_files import write_model
from utils.errors import UserError
from utils.image import read_pixels

SPARE = 2 * 2**20  # bytes
PIXELS_PER_BYTE = 1032 * 8  # of a one-bit PNG, compressed as well as deflate can; each takes 16 bytes at most


@dataclass(frozen=True)
class Target:
    """A reader: `read(folder)` reads the files of a case; `cases` are file name -> content."""

    name: str
    read: Callable[[Path], None]
    cases: Sequence[dict[str, bytes]]
    multiple: int
    damaged: Sequence[str] = field(default=())  # names of files that are damaged; all if empty

    def execute(self, folder: Path, case: dict[str, bytes], measure: bool = True) -> None:
        """Read a case from the folder, which is emptied of other cases' files, and `measure` its memory.

        Raises: what the reader raises beside UserError, and AssertionError where it takes too much memory.
        """
        for path in folder.iterdir():
            if path.is_file() and path.name not in case:
                path.unlink()
        for name, content in case.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        if not measure:
            with suppress(UserError):
                self.read(folder)
            return
        tracemalloc.start()
        try:
            with suppress(UserError):
                self.read(folder)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        limit = self.multiple * sum(map(len, case.values())) + SPARE
        assert peak <= limit, f"{peak:,} bytes for files of {sum(map(len, case.values())):,}"


def targets(folder: Path) -> list[Target]:
    """All of them; `folder` is for making their files."""
    logging.getLogger("gradiseg").setLevel(logging.ERROR)
    return [
        Target("PLY", _read_plys, _plys(folder), 16),
        Target("COLMAP, binary", _read_colmap, [_colmap(folder / "binary", text=False)], 16),
        Target("COLMAP, text", _read_colmap, [_colmap(folder / "text", text=True)], 16),
        Target("transforms JSON", _read_json_scene, _transforms(folder), 64, ("transforms_train.json",)),
        Target("masks and pictures", _read_pictures, _pictures(), PIXELS_PER_BYTE * 16),
        Target("cfg_args", _read_run_options, [{"cfg_args": _CFG_ARGS}], 1024),
        Target("checkpoint and classifier", _read_checkpoint, _checkpoints(), 64),
        Target("ids JSON", lambda path: _each(path, read_ids), _ids(), 64),
    ]


def _each(folder: Path, read: Callable[[Path], object]) -> None:
    """Read every file; the first error of a user does not keep the others from being read."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with suppress(UserError):
                read(path)


def _read_plys(folder: Path) -> None:
    _each(folder, read_ply)
    _each(folder, read_point_cloud)


def _plys(folder: Path) -> list[dict[str, bytes]]:
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "xyz": (3,),
        "f_dc": (1, 3),
        "f_rest": (0, 3),
        "opacity": (1,),
        "scaling": (3,),
        "rotation": (4,),
        "obj_dc": (1, 16),
    }
    path = folder / "a.ply"
    write_ply(path, {name: torch.randn(3, *shape, generator=generator) for name, shape in shapes.items()})
    found = [{"a.ply": path.read_bytes()}]
    cloud = np.array(
        [(1, 2, 3, 255, 0, 9), (4, 5, 6, 1, 2, 3)],
        dtype=[(axis, "f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")],
    )
    faces = np.array([([0, 1, 0],)], dtype=[("vertex_indices", "i4", (3,))])
    elements = [plyfile.PlyElement.describe(cloud, "vertex"), plyfile.PlyElement.describe(faces, "face")]
    for text, order in ((True, "="), (False, "<"), (False, ">")):
        stream = io.BytesIO()
        plyfile.PlyData(elements, text, order).write(stream)
        found.append({"a.ply": stream.getvalue()})
    return found


def _read_colmap(folder: Path) -> None:
    for read in (read_model, read_observations, read_point_ids):
        with suppress(UserError):
            read(folder)


def _colmap(folder: Path, text: bool) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    images = {key: ColmapImage(np.eye(4)[0], np.ones(3), 3, f"v {key}.jpg") for key in (1, 7)}
    camera = ColmapCamera(64, 48, 50.0, 51.5, 31.25, 24.5)
    colors = np.arange(9, dtype=np.uint8).reshape(3, 3)
    write_model(folder, ColmapModel({3: camera}, images, np.ones((3, 3)), colors), text=text)
    if text:
        path = folder / "images.txt"
        path.write_text(path.read_text().replace("\n\n", "\n1.5 2.5 -1 3 4 1\n", 1))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _read_json_scene(folder: Path) -> None:
    read_scene(ModelParams(source_path=str(folder)))


def _transforms(folder: Path) -> list[dict[str, bytes]]:
    picture = io.BytesIO()
    Image.new("RGB", (6, 4)).save(picture, "PNG")
    cloud = _plys(folder)[1]["a.ply"]
    frames = [
        {"file_path": f"r_{index}", "transform_matrix": (np.eye(4) + index * np.eye(4, k=3)).tolist()}
        for index in range(2)
    ]
    lenses = (
        {"camera_angle_x": 0.6},
        {"fl_x": 9.0, "fl_y": 9, "cx": 3.1, "cy": 2, "w": 6, "h": 4, "k1": 0.0},
    )
    return [
        {
            "transforms_train.json": json.dumps(
                {**lens, "frames": frames, "ply_file_path": "a.ply"}
            ).encode(),
            "r_0.png": picture.getvalue(),
            "r_1.png": picture.getvalue(),
            "a.ply": cloud,
        }
        for lens in lenses
    ]


def _read_pictures(folder: Path) -> None:
    for read in (read_id_map, read_pixels, read_mask):
        _each(folder, read)


def _pictures() -> list[dict[str, bytes]]:
    ids = np.arange(30, dtype=np.uint8).reshape(5, 6)
    palette = Image.fromarray(ids).convert("P")
    pictures = [
        Image.fromarray(ids),
        Image.fromarray(ids.astype(np.uint16) * 999),
        Image.fromarray(np.stack([ids] * 3, -1)),
        Image.fromarray(np.stack([ids] * 4, -1)),
        Image.fromarray(ids > 9),
        palette,
    ]
    found = []
    for picture in pictures:
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        found.append({"a.png": stream.getvalue()})
    stream = io.BytesIO()
    pictures[2].save(stream, "JPEG")
    return [*found, {"a.png": stream.getvalue()}]


_CFG_ARGS = (
    b"Namespace(data_device='cpu', eval=False, images='images', model_path='out', resolution=-1, "
    b"sh_degree=3, source_path='data/demo', white_background=False, num_classes=256, iterations=[1, 2.5, -3])"
)


def _read_run_options(folder: Path) -> None:
    read_cfg_args(folder)  # most fail here, before a parser of all options is built
    parse_with_run((ModelParams, DeviceParams), ["-m", str(folder)])


def _read_checkpoint(folder: Path) -> None:
    _each(folder, checkpoint.load)
    _each(folder, load_conv)


def _checkpoints() -> list[dict[str, bytes]]:
    contents = dict.fromkeys(checkpoint.SECTIONS, 0) | {
        "format": checkpoint.FORMAT,
        "version": checkpoint.VERSION,
        "model": {"params": {"xyz": torch.ones(2, 3)}},
        "camera_order": [1, 0],
    }
    classifier = {"weight": torch.ones(3, 16, 1, 1), "bias": torch.ones(3)}
    found = []
    for saved in (contents, classifier):
        stream = io.BytesIO()
        torch.save(saved, stream)
        found.append({"a.pth": stream.getvalue()})
    return found


def _ids() -> list[dict[str, bytes]]:
    tables = (
        {"a mug": 3, "a ball": [4, 5]},
        {"ids": {"mug": [1]}, "source": "text"},
        {"prompts": {"mug": 1}},
    )
    return [{"a.json": json.dumps(table).encode()} for table in tables]
