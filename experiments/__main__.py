"""Trains, renders and scores scenes; scripts/run_scene.sh, lerf_mask.sh and mipnerf360.sh call it.

    python -m experiments scene SCENE RUN CONFIG [flags of train.py]
    python -m experiments lerf_mask DATA OUT [flags of train.py]
    python -m experiments mipnerf360 DATA OUT [flags of train.py]

Steps that are done are not done again, and a training that was cut off goes on from its checkpoint.
"""

import argparse
import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import engines, paper
from experiments.experiment import carry_out
from experiments.page import RULE
from experiments.run import Run, training
from experiments.tables import write_tables
from utils.errors import run_command


def parse_args(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the flags of train.py among them."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    scene = _command(commands, "scene", "one scene", "scene", "run")
    scene.add_argument("config", help="gradiseg, a file of config/gradiseg/, igd_from_N, or a JSON file")
    scene.add_argument("--anew", action="store_true", help="make the run again from its start")
    _flags(scene, "--render", "of render.py", "--skip_train")
    _flags(scene, "--metrics", "of metrics.py")
    _flags(scene, "--text", "of the choice of ids by words; '' = none")
    lerf = _command(commands, "lerf_mask", "LERF-Mask: tables 1, 2, 4 and figure 6", "data", "out")
    lerf.add_argument("--scenes", nargs="+", default=paper.LERF_SCENES)
    lerf.add_argument("--configs", nargs="+", default=paper.LERF_CONFIGS)
    _flags(lerf, "--metrics", "of metrics.py")
    _flags(lerf, "--text", "of the choice of ids by words; '' = none", "--box_threshold 0.3")
    lerf.add_argument("--text_masks", type=Path, help="folder of SCENE/WORDS.png in the place of both models")
    mipnerf360 = _command(commands, "mipnerf360", "Mip-NeRF 360: table 3", "data", "out")
    mipnerf360.add_argument("--scenes", nargs="+", default=paper.MIPNERF360_SCENES)
    mipnerf360.add_argument("--configs", nargs="+", default=paper.MIPNERF360_CONFIGS)
    mipnerf360.add_argument("--factors", nargs="+", default=paper.FACTORS)
    return parser.parse_known_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing."""
    args, flags = parse_args(sys.argv[1:] if argv is None else argv)
    engine = functools.partial(engines.choose, args)
    if args.command == "scene":
        folder = args.run.resolve()
        run = training(
            args.scene.resolve(),
            folder,
            args.config,
            flags,
            render=args.render,
            metrics=args.metrics,
            text=args.text or None,
        )
        if args.anew:
            run.forget()
        carry_out([run], folder.parent, engine, lambda: None)
        print(f"{folder.name}: {', '.join(f'{name} {value:.3f}' for name, value in headline(run).items())}")
        return
    data, out = args.data.resolve(), args.out.resolve()
    runs: list[Run]
    if args.command == "lerf_mask":
        masks = args.text_masks and args.text_masks.resolve()
        choice = {"scenes": args.scenes, "configs": args.configs, "metrics": args.metrics}
        runs = paper.lerf_mask_runs(data, out, flags, text=args.text, text_masks=masks, **choice)
        tabulate = functools.partial(write_tables, out, lerf=out)
    else:
        choice = {"scenes": args.scenes, "configs": args.configs, "factors": args.factors}
        runs = paper.mipnerf360_runs(data, out, flags, **choice)
        tabulate = functools.partial(write_tables, out, mipnerf360=out)
    carry_out(runs, out, engine, tabulate)
    print((out / "tables.md").read_text(encoding="utf-8"))


def headline(run: Run) -> dict[str, float]:
    """The scores of a run that one looks at first."""
    scores = run.scores()
    scores |= scores.get("rules", {}).get(RULE, {})
    return {key: scores[key] for key in ("psnr", "ssim", "miou", "mbiou") if key in scores}


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, about: str, *folders: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
    for folder in folders:
        parser.add_argument(folder, type=Path)
    engines.add_options(parser)
    return parser


def _flags(parser: argparse.ArgumentParser, name: str, whose: str, default: str = "") -> None:
    parser.add_argument(name, type=shlex.split, default=default, help=f"flags {whose}, as one string")


if __name__ == "__main__":
    run_command(main)
