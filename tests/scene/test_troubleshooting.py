"""docs/troubleshooting.md prints what a user sees for typical mistakes, word for word."""

import errno
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arguments import ModelParams
from gradiseg import checkpoint
from scene import Scene
from scene.colmap import read_model
from scene.ply import write_point_cloud
from scene.run_folder import RunFolder
from tests.colmap_files import write_model
from utils.errors import UserError, explain
from utils.files import atomic_write

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def load(scene: Path, **options: object) -> None:
    Scene(ModelParams(source_path=str(scene), **options), None)  # type: ignore[arg-type]


def no_scene(scene: Path) -> None:
    load(scene / "images")


def another_image_folder(scene: Path) -> None:
    load(scene, images="images_4")


def distorted_cameras(scene: Path) -> None:
    camera = struct.pack("<QiiQQ4d", 1, 1, 2, 24, 16, 20, 11, 8, 0.1)  # SIMPLE_RADIAL
    (scene / "sparse" / "0" / "cameras.bin").write_bytes(camera)
    load(scene)


def a_line_by_hand(scene: Path) -> None:
    model = scene / "sparse" / "0"
    write_model(model, read_model(model), text=True)
    for path in model.glob("*.bin"):
        path.unlink()
    (model / "points3D.txt").write_text("0.5 1.2 3 255 128 0 0.1\n")
    load(scene)


def no_masks(scene: Path) -> None:
    shutil.rmtree(scene / "object_mask")
    load(scene)


def masks_under_other_names(scene: Path) -> None:
    for path in sorted((scene / "object_mask").iterdir()):
        path.rename(path.with_name(f"mask_{path.name}"))
    load(scene)


def turned_masks(scene: Path) -> None:
    for path in (scene / "object_mask").iterdir():
        Image.fromarray(np.array(Image.open(path)).T).save(path)
    load(scene)


def too_few_classes(scene: Path) -> None:
    load(scene, num_classes=4)


def an_occupied_folder(scene: Path) -> None:
    (scene / "run").mkdir()
    (scene / "run" / "cfg_args").touch()
    RunFolder.for_training(str(scene / "run"))


def a_ply_for_a_checkpoint(scene: Path) -> None:
    write_point_cloud(scene / "point_cloud.ply", np.zeros((1, 3)), np.zeros((1, 3)))
    checkpoint.load(scene / "point_cloud.ply")


def a_full_disk(scene: Path) -> None:
    with atomic_write(scene / "run" / "chkpnt7000.pth"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


MISTAKES: tuple[Callable[[Path], None], ...] = (
    no_scene,
    another_image_folder,
    distorted_cameras,
    a_line_by_hand,
    no_masks,
    masks_under_other_names,
    turned_masks,
    too_few_classes,
    an_occupied_folder,
    a_ply_for_a_checkpoint,
    a_full_disk,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_page_prints_what_is_said(scene_folder: Path, mistake: Callable[[Path], None]) -> None:
    with pytest.raises((UserError, OSError)) as error:
        mistake(scene_folder)
    said = "error: " + str(explain(error.value)).replace(str(scene_folder), "SCENE").replace(
        "SCENE/run", "RUN"
    )
    assert said in PAGE.read_text(encoding="utf-8").splitlines()
