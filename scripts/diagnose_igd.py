"""Pictures of the Gaussians that IGD is about to split, and how near to boundaries they lie.

python train.py -s data/demo -m output/run ... --checkpoint_iterations 1655
python scripts/diagnose_igd.py -m output/run --checkpoint output/run/chkpnt1655.pth --out output/igd
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

import numpy as np

from arguments import GradiSegParams, ModelParams, OptimizationParams, names_of, option, parse_with_run
from gradiseg import checkpoint
from gradiseg.evaluation.diagnosis import anomalies, near_boundary, picture
from scene import GaussianModel, Scene
from scene.cameras import Camera
from scene.masks import read_id_map, resize_id_map
from utils.errors import UserError, run_command
from utils.image import write_png
from utils.json_files import write_json

REACH = 3.0  # pixels
PICTURES = 4


@dataclass
class DiagnosisParams:
    """What is looked at, and where the pictures go."""

    checkpoint: str = option("", "checkpoint inside IGD's window")
    truth: str = option("", "folder of id maps to measure distances with; default: the training masks")
    out: str = option("igd", "folder of the pictures and diagnosis.json")


GROUPS = (ModelParams, OptimizationParams, GradiSegParams, DiagnosisParams)
WITHOUT = ("sh_degree", *names_of(OptimizationParams))  # the checkpoint holds what they made


def main(argv: Sequence[str] | None = None) -> None:
    """Load, measure every training view, draw a few."""
    args, opt, gradiseg, options = parse_with_run(
        GROUPS, argv, prog="diagnose_igd.py", description=__doc__, without=WITHOUT
    )
    contents = checkpoint.load(options.checkpoint)
    model = GaussianModel(args.sh_degree)
    model.restore(contents["model"], opt)
    if not bool(model.state["identity_gradient_denom"].any()):
        raise UserError(f"{options.checkpoint}: holds no identity gradients. Save one inside IGD's window.")
    found = anomalies(model, gradiseg)
    cameras = [camera for camera in Scene(args, None).getTrainCameras() if camera.is_masked]
    maps = [id_map(camera, options.truth) for camera in cameras]
    counts = np.array(
        [near_boundary(model, found, c, ids, REACH) for c, ids in zip(cameras, maps, strict=True)]
    )
    near, seen, near_chosen, seen_chosen = counts.sum(0).tolist()
    record = {
        "gaussians": model.num_gaussians,
        "chosen": int(found.chosen.sum()),
        "within_3_px_of_all": near / max(seen, 1),
        "within_3_px_of_chosen": near_chosen / max(seen_chosen, 1),
    }
    write_json(Path(options.out, "diagnosis.json"), record)
    for index in np.linspace(0, len(cameras) - 1, min(PICTURES, len(cameras))).round().astype(int):
        drawn = picture(model, found, cameras[index], maps[index])
        write_png(Path(options.out, f"{cameras[index].image_name}.png"), drawn)
    print(record)


def id_map(camera: Camera, folder: str) -> np.ndarray:
    """The ids (H, W) of a view, from its mask or from `folder`."""
    if not folder:
        assert camera.objects is not None
        return camera.objects.cpu().numpy().astype(np.int64)
    ids = read_id_map(Path(folder, f"{camera.image_name}.png"))
    return np.asarray(resize_id_map(ids, camera.image_width, camera.image_height), np.int64)


if __name__ == "__main__":
    run_command(main)
