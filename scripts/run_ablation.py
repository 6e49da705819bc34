"""Trains scenes x configurations x seeds, scores every run on the exact masks, and writes one table.

    python scripts/run_ablation.py --scenes SCENE --configs baseline gradiseg --seeds 0 1 2 \\
        --out output/ablation --train "-r 2 --schedule_scale 0.2 --max_gaussians 40000"

A run is the four commands of a user: train.py, render.py, metrics.py, scripts/eval_lerf_mask.py, in a folder
of its own, `SCENE/CONFIG/SEED`. It has their output in `run.log`, and in `run.json` the commands and machines
that made it; it is not made again unless its commands changed, and one that was cut off goes on from its
checkpoint. `results.json` holds the scores of all runs, `table.md` their means and standard deviations over
the seeds, `runs.html` where all runs stand. Give every run the same budget with --max_gaussians, so that
more Gaussians are not mistaken for better ones.
"""

import argparse
import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from experiments import ablation, engines
from experiments.configurations import CONFIGS
from experiments.experiment import carry_out
from utils.errors import run_command
from utils.files import write_text
from utils.json_files import write_json


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", type=Path, required=True, help="folders with a test_mask/")
    parser.add_argument(
        "--configs",
        nargs="+",
        default=["baseline", "gradiseg"],
        help=f"JSON files, igd_from_N, or of {', '.join(CONFIGS)}",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, required=True, help="where the runs and the table go")
    parser.add_argument("--train", default="", help="flags of train.py for every run, as one string")
    engines.add_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing."""
    args = parse_args(argv)
    out = args.out.resolve()
    scenes = [scene.resolve() for scene in args.scenes]
    runs = ablation.cells(scenes, args.configs, args.seeds, out, shlex.split(args.train))

    def tabulate() -> None:
        records = [run.scores() for run in runs if not run.open_steps()]
        write_json(out / "results.json", records)
        write_text(out / "table.md", ablation.table(records))

    carry_out(runs, out, functools.partial(engines.choose, args), tabulate)
    print((out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main)
