"""Renders the views of a trained run: pictures, identity maps, predicted ids; or masks of words (--text)."""

import utils.openmp  # noqa: F401  # isort: skip

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, option, parse_with_run
from gradiseg.evaluation.text import TextParams, choose_by_text, write_text_views
from gradiseg.evaluation.views import fit_identity_colors, require_video, write_video, write_views
from gradiseg.trained import TrainedRun, load_run
from scene.cameras import Camera
from utils.errors import run_command
from utils.files import atomic_write
from utils.image import PcaColors
from utils.log import set_up


@dataclass
class RenderParams:
    """What is rendered."""

    iteration: int = option(-1, "saved iteration; -1 = the latest", first=True, low=-1)
    skip_train: bool = option(False, "leave out the training views", first=True)
    skip_test: bool = option(False, "leave out the test views", first=True)
    video: bool = option(False, "also write the pictures side by side, or the masks of words, as a video")
    quiet: bool = option(False, "print nothing but errors")


GROUPS = (ModelParams, DeviceParams, RenderParams, TextParams)
WITHOUT = OF_SAVED_MODEL


def save_colors(run: TrainedRun, colors: PcaColors) -> None:
    """Keeps the fit beside the model, so that other tools colour its identities alike."""
    with atomic_write(run.folder.saved(run.iteration) / "identity_colors.npz") as temporary:
        np.savez(
            temporary, **{name: getattr(colors, name).numpy() for name in ("mean", "basis", "low", "high")}
        )


def splits(run: TrainedRun, options: RenderParams) -> Iterator[tuple[str, Sequence[Camera]]]:
    """The splits that are wanted and not empty, with their cameras."""
    if run.train_cameras and not options.skip_train:
        yield "train", run.train_cameras
    if run.test_cameras and not options.skip_test:
        yield "test", run.test_cameras


def write_pictures(run: TrainedRun, options: RenderParams) -> None:
    """Writes all pictures of the views below `<run>/<split>/ours_N/`."""
    colors = fit_identity_colors(run.train_cameras, run.render_identity)
    save_colors(run, colors)
    for split, cameras in splits(run, options):
        folder = run.folder.renders(split, run.iteration)
        write_views(folder, cameras, run.draw, run.classifier, colors)
        if options.video:
            write_video(folder / "concat.mp4", sorted((folder / "concat").glob("*.png")))
        if not options.quiet:
            print(f"{len(cameras)} {split} views: {folder}")


def write_masks_of_words(run: TrainedRun, source: Path, words: TextParams, options: RenderParams) -> None:
    """Writes the masks of `--text` below `<run>/<split>/ours_N_text/`."""
    choice = choose_by_text(run, source, words)
    for split, cameras in splits(run, options):
        folder = run.folder.text(split, run.iteration)
        write_text_views(folder, cameras, run, choice.ids)
        if options.video:
            write_video(folder / "overlay.mp4", sorted((folder / "overlay").glob("*.png")))
        if not options.quiet:
            print(f"masks in {len(cameras)} {split} views: {folder}")


def main(argv: Sequence[str] | None = None) -> None:
    """Renders the views, or finds words in them."""
    model, pipeline, options, words = parse_with_run(
        GROUPS, argv, prog="render.py", description=__doc__ or "", without=WITHOUT
    )
    set_up(options.quiet)
    if options.video:
        require_video()
    run = load_run(model, pipeline, options.iteration)
    if words.text:
        write_masks_of_words(run, Path(model.source_path), words, options)
    else:
        write_pictures(run, options)


if __name__ == "__main__":
    run_command(main)
