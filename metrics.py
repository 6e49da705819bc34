"""Scores the renders of one or more runs: PSNR, SSIM and, where its weights are installed, LPIPS."""

import utils.openmp  # noqa: F401  # isort: skip

import argparse
from collections.abc import Sequence
from pathlib import Path

from gradiseg.evaluation.images import image_metrics, score_run
from pretrained.lpips import ARCHITECTURES, HINT, load_lpips
from scene.run_folder import RunFolder
from utils.device import DEVICES, select_device
from utils.errors import run_command
from utils.json_files import write_json
from utils.log import set_up


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model_paths", nargs="+", type=Path, required=True, help="folders of runs")
    parser.add_argument(
        "--iteration", type=int, default=-1, help="iteration to score (default: the latest rendered)"
    )
    parser.add_argument("--json", type=Path, help="also write the record here (several runs: by their path)")
    parser.add_argument("--per_view", action="store_true", help="add every view's scores to the record")
    parser.add_argument(
        "--lpips", choices=[*ARCHITECTURES, "none"], default="vgg", help="network of LPIPS (default: vgg)"
    )
    parser.add_argument(
        "--lpips_from_zero",
        action="store_true",
        help="give it pictures in [0, 1] instead of [-1, 1], as 3DGS and Gaussian Grouping do",
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="auto takes a GPU where there is one"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Scores each run, prints its means and writes `results.json` into its folder."""
    arguments = parse_arguments(argv)
    set_up(arguments.quiet)
    device = select_device(arguments.device)
    wanted = arguments.lpips != "none"
    lpips = load_lpips(arguments.lpips, arguments.lpips_from_zero, device) if wanted else None
    about = {"lpips_network": arguments.lpips, "lpips_input_range": [arguments.lpips_from_zero - 1, 1]}
    records = {}
    for model_path in arguments.model_paths:
        folder = RunFolder(model_path)
        record = score_run(folder, image_metrics(lpips), arguments.iteration, arguments.per_view, device)
        record |= about if lpips else {}
        write_json(folder.results, record)
        records[str(model_path)] = record
        if not arguments.quiet:
            names = [name for name in ("psnr", "ssim", "lpips") if name in record]
            scores = "  ".join(f"{name.upper()} {record[name]:.4f}" for name in names)
            views = f"{record['views']} {record['split']} views"
            print(f"{model_path} iteration {record['iteration']}: {scores} ({views})")
            if record["split"] == "train":
                print("This run has no test views: the scores are those of its training views.")
    if wanted and lpips is None and not arguments.quiet:
        print(HINT)
    if arguments.json:
        write_json(arguments.json, next(iter(records.values())) if len(records) == 1 else records)


if __name__ == "__main__":
    run_command(main)
