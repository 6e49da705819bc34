"""Gives a splat that any tool trained identities: from its file, its scene's cameras and masks to a run.

    python segment_splat.py --ply FILE -s SCENE -m output/run

The masks vote for whose each Gaussian is; then its boundaries are refined. Every other command works on the
result: render.py, edit.py, export.py, scripts/eval_lerf_mask.py.
"""

import utils.openmp  # noqa: F401  # isort: skip

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from arguments import DeviceParams, ModelParams, option, parse, write_cfg_args
from gradiseg.finished.segmentation import LAST_PACE, Segmentation
from gradiseg.finished.splat import LEAST_PSNR, check_fit, fit, load_splat, points_of
from scene import Scene
from scene.run_folder import RunFolder
from utils.device import select_device
from utils.errors import UserError, run_command
from utils.general import seed_everything
from utils.json_files import write_json
from utils.log import set_up
from utils.steps import all_or_nothing


@dataclass
class SegmentParams:
    """Which splat is segmented, and how."""

    ply: str = option("", "the splat: .ply, .splat or .glb", first=True)
    refine: bool = option(True, "after the votes, draw Gaussians back from other objects' pixels", first=True)
    rounds: int = option(6, "rounds of refinement, with votes after each", low=1)
    steps: int = option(100, "steps of a round", low=1)
    join_aliases: bool = option(True, "join ids that are of one object, as training does")
    min_psnr: float = option(LEAST_PSNR, "PSNR that the splat must have in the scene's views at least", low=0)
    overwrite: bool = option(False, "replace the run that the output folder holds", first=True)
    seed: int = option(0, "seed of every random choice", low=0)
    quiet: bool = option(False, "print nothing but errors")


GROUPS = (ModelParams, DeviceParams, SegmentParams)
WITHOUT = ("sh_degree",)


def segment(segmentation: Segmentation, options: SegmentParams) -> int:
    """Aliases joined, whose number it returns, labels weighed, and the refinement.

    Raises: UserError on Ctrl-C or SIGTERM; nothing is written then.
    """
    aliases = segmentation.join_aliases() if options.join_aliases else 0
    segmentation.weigh_labels()
    if not options.refine:
        return aliases
    with all_or_nothing("Refining", options.rounds * options.steps) as told:
        for number in range(options.rounds):
            segmentation.refine(options.steps, told, LAST_PACE if number == options.rounds - 1 else 1.0)
    return aliases


def describe(record: dict[str, Any]) -> str:
    """What happened, for the terminal."""
    lines = [
        f"{record['num_gaussians']:,} Gaussians of {record['objects']} ids in {record['seconds']:.0f} s; "
        f"{record['unseen']:,} that no mask sees have id 0.",
        f"PSNR of the training views {record['psnr_before']:.2f} dB before, {record['psnr']:.2f} now.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Segments the splat. Nothing is written before all is done."""
    args, pipe, options = parse(
        GROUPS, argv, prog="segment_splat.py", description=__doc__ or "", without=WITHOUT
    )
    set_up(options.quiet)
    if not options.ply:
        raise UserError("--ply is required: the splat, a .ply, .splat or .glb file.")
    folder = RunFolder.for_training(args.model_path, options.overwrite)
    if pipe.threads:
        torch.set_num_threads(pipe.threads)
    seed_everything(options.seed)
    device = select_device(pipe.device)
    start = time.perf_counter()
    scene = Scene(args, None, device=device)
    model = load_splat(options.ply, device, scene.info.origin)
    args.sh_degree = model.max_sh_degree
    cameras = scene.getTrainCameras()
    background = torch.full((3,), float(args.white_background), device=device)
    scene.info = replace(scene.info, point_cloud=points_of(scene.info, model))
    check_fit(model, cameras, background, scene.info.point_cloud.points, options.min_psnr, options.ply)
    before = fit(model, cameras, background)
    segmentation = Segmentation(
        model, cameras, scene.class_ids, args.num_classes, background, scene.cameras_extent
    )
    aliases = segment(segmentation, options)
    votes = segmentation.votes
    record = {
        "of": Path(options.ply).name,
        "num_gaussians": model.num_gaussians,
        "objects": int((votes.ids.unique() > 0).sum()),
        "unseen": int((votes.mass == 0).sum()),
        "hidden": int(votes.hidden.sum()),
        "impurity": votes.impurity(),
        "aliases": aliases,
        "steps": options.rounds * options.steps * options.refine,
        "psnr_before": before,
        "psnr": fit(model, cameras, background),
        "seconds": time.perf_counter() - start,
    }
    folder.begin(options.overwrite)
    write_cfg_args(args.model_path, args)
    scene.write_start()
    segmentation.save(folder.saved(record["steps"]))
    write_json(folder.segmented, record)
    if not options.quiet:
        print(describe(record))
        print(f"See it: python render.py -m {args.model_path}")


if __name__ == "__main__":
    run_command(main)
