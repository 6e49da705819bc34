"""Renders the views of a trained run: pictures, identity maps, predicted ids."""

import utils.openmp  # noqa: F401  # isort: skip

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arguments import ModelParams, PipelineParams, option, parse_with_run
from gradiseg.evaluation.trained import TrainedRun, load_run
from gradiseg.evaluation.views import fit_identity_colors, require_video, write_video, write_views
from utils.errors import run_command
from utils.files import atomic_write
from utils.image import PcaColors


@dataclass
class RenderParams:
    """What is rendered."""

    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)
    skip_train: bool = option(False, "leave out the training views")
    skip_test: bool = option(False, "leave out the test views")
    video: bool = option(False, "also write the pictures side by side as concat.mp4")
    quiet: bool = option(False, "print nothing but errors")


def save_colors(run: TrainedRun, colors: PcaColors) -> None:
    """Keeps the fit beside the model, so that other tools colour its identities alike."""
    path = run.folder / "point_cloud" / f"iteration_{run.iteration}" / "identity_colors.npz"
    with atomic_write(path) as temporary:
        np.savez(
            temporary, **{name: getattr(colors, name).numpy() for name in ("mean", "basis", "low", "high")}
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the pictures of both splits below `<run>/<split>/ours_N/`."""
    groups = (ModelParams, PipelineParams, RenderParams)
    model, pipeline, options = parse_with_run(groups, argv, prog="render.py", description=__doc__ or "")
    if options.video:
        require_video()
    run = load_run(model, pipeline, options.iteration, options.quiet)
    colors = fit_identity_colors(run.train_cameras, run.render_identity)
    save_colors(run, colors)
    for split, cameras, skip in (
        ("train", run.train_cameras, options.skip_train),
        ("test", run.test_cameras, options.skip_test),
    ):
        if skip or not cameras:
            continue
        folder = run.folder / split / f"ours_{run.iteration}"
        write_views(folder, cameras, run.draw, run.classifier, colors, options.quiet)
        if options.video:
            write_video(folder / "concat.mp4", sorted((folder / "concat").glob("*.png")))
        if not options.quiet:
            print(f"{len(cameras)} {split} views: {folder}")


if __name__ == "__main__":
    run_command(main)
