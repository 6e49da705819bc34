"""Trains scenes x configurations x seeds, scores every run on the exact masks, and writes one table.

    python scripts/run_ablation.py --scenes SCENE --configs baseline gradiseg --seeds 0 1 2 \\
        --out output/ablation --train "-r 2 --schedule_scale 0.2 --max_gaussians 40000"

A run is the four commands of a user: train.py, render.py, metrics.py, scripts/eval_lerf_mask.py. Its scores
are kept in its folder, `SCENE/CONFIG/SEED/scores.json`, with the commands that gave them; a run that has them
is not made again unless its commands changed, so that a stopped ablation goes on where it was. `results.json`
holds the scores of all runs, `table.md` their means and standard deviations over the seeds. Give every run
the same budget with --max_gaussians, so that more Gaussians are not mistaken for better ones.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from utils.errors import UserError, run_command
from utils.files import write_text
from utils.json_files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]

# Name -> the JSON in config/gradiseg and the flags beside it. A path to another JSON is a configuration, too.
CONFIGS: dict[str, tuple[str, str]] = {
    "baseline": ("baseline", ""),
    "baseline_exact": ("baseline", "--object_path object_mask_exact"),  # what noise in the masks costs
    "baseline_by_rgb": ("baseline", "--identity_lambda_by_rgb"),
    "no_igd": ("no_igd", ""),
    "no_la_knn": ("no_la_knn", ""),
    "gradiseg": ("train", ""),
    "no_repair": ("train", "--no_repair_masks --no_identity_lambda_by_rgb"),
    "paper": ("paper", ""),  # its formulas to the letter
    "no_outlines": ("train", "--no_correct_outlines"),
    "constant_alpha": ("train", "--no_identity_lambda_by_rgb"),
    "early_repair": ("train", "--repair_from_iter 2000"),  # for long runs
    "fixed_geometry": ("train", "--no_identity_geometry_grad"),
    "gradiseg_exact": ("train", "--object_path object_mask_exact"),
    "la_knn_from_12000": ("train", "--la_knn_from_iter 12000"),
    "igd_from_9000": ("train", "--densify_until_iter 9000 --igd_from_iter 9000 --igd_until_iter 12000"),
    "igd_from_15000": (
        "train",
        "--densify_until_iter 15000 --igd_from_iter 15000 --igd_until_iter 18000 --la_knn_from_iter 18000",
    ),
    "densify_to_15000": ("no_igd", "--densify_until_iter 15000"),  # 3DGS in the iterations of IGD
    "split_random": ("train", "--igd_split random"),
    "candidates_all": ("train", "--la_knn_candidates all"),
    "candidates_20": ("train", "--la_knn_candidates 20"),
    "tau_quantile": ("train", "--igd_rule quantile"),
    "tau_3_std": ("train", "--igd_std_factor 3"),
}
RULES = ("softmax>0.2", "softmax>0.5", "argmax")  # all three, so that a gain is not a threshold's
COLUMNS = {  # heading -> key of a record or of its mask scores, decimals
    "mIoU": ("miou", 3),
    "mBIoU": ("mbiou", 3),
    "strict mBIoU": ("mbiou_strict", 3),
    "error within 3 px": ("mband_error", 3),
    "PSNR": ("psnr", 2),
    "SSIM": ("ssim", 3),
    "Gaussians": ("num_gaussians", 0),
    "seconds": ("seconds", 0),
}


@dataclass(frozen=True)
class Run:
    """One cell of the ablation: a scene, a configuration and a seed, in a folder of their own."""

    scene: Path
    config: str
    seed: int
    folder: Path
    train_flags: tuple[str, ...]

    @property
    def commands(self) -> list[list[str]]:
        """The command lines, below the repository's root, that make and score the run."""
        json, flags = CONFIGS.get(self.config, (self.config, ""))
        config_file = json if json.endswith(".json") else f"config/gradiseg/{json}.json"
        train = ["train.py", "-s", str(self.scene), "-m", str(self.folder), "--config_file", config_file]
        train += ["--seed", str(self.seed), "--overwrite", *self.train_flags, *shlex.split(flags)]
        of_run = ["-m", str(self.folder), "--quiet"]
        return [
            [*train, "--quiet"],
            ["render.py", *of_run, "--skip_train"],
            ["metrics.py", *of_run, "--lpips", "none"],
            ["scripts/eval_lerf_mask.py", *of_run],
        ]

    def scores(self) -> dict[str, Any] | None:
        """What `execute` kept, None where it has not run or other commands made it."""
        path = self.folder / "scores.json"
        record = read_json(path) if path.is_file() else None
        return record if record and record["commands"] == self._command_lines() else None

    def execute(self, threads: int) -> dict[str, Any]:
        """Run the commands, their output in `log.txt`, and keep the scores.

        Raises: UserError with the last line of a command that failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder.with_suffix(".log")  # outside the run, which train.py clears
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        for command in self.commands:
            with open(log, "w", encoding="utf-8") as file:
                code = subprocess.call(
                    [sys.executable, *command], cwd=ROOT, env=environment, stdout=file, stderr=file
                )
            if code:
                lines = log.read_text(encoding="utf-8").splitlines() or ["no output"]
                raise UserError(f"{shlex.join(command)}: {lines[-1]}")
        log.unlink()
        record = self._collect()
        write_json(self.folder / "scores.json", record)
        return record

    def _command_lines(self) -> list[str]:
        return [shlex.join(["python", *command]) for command in self.commands]

    def _collect(self) -> dict[str, Any]:
        images = read_json(self.folder / "results.json")
        masks = read_json(self.folder / "eval_lerf_mask.json")
        training = read_json(self.folder / "training_summary.json")
        return {
            "scene": self.scene.name,
            "config": self.config,
            "seed": self.seed,
            "rules": masks["rules"],
            "psnr": images["psnr"],
            "ssim": images["ssim"],
            "num_gaussians": training["num_gaussians"],
            "iterations": training["iterations"],
            "seconds": training["seconds"],
            "commands": self._command_lines(),
        }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: for each mask rule the configurations of every scene, then their means over the scenes."""
    scenes = list(dict.fromkeys(record["scene"] for record in records))
    configs = list(dict.fromkeys(record["config"] for record in records))
    lines: list[str] = []
    for rule in RULES:
        lines += [f"Masks by {rule}", "", "| scene | configuration | seeds | " + " | ".join(COLUMNS) + " |"]
        lines.append("|---" * (3 + len(COLUMNS)) + "|")
        for scene in scenes + ["mean"] * (len(scenes) > 1):
            for config in configs:
                cell = [r for r in records if r["config"] == config and scene in (r["scene"], "mean")]
                if cell and (scene != "mean" or {r["scene"] for r in cell} == set(scenes)):
                    lines.append(f"| {scene} | {config} | " + " | ".join(_columns(cell, rule)) + " |")
        lines.append("")
    return "\n".join(lines)


def _columns(records: Sequence[dict[str, Any]], rule: str) -> list[str]:
    """Number of seeds, then mean ± deviation over the seeds of the scores' means over the scenes."""
    seeds = sorted({record["seed"] for record in records})
    columns = [str(len(seeds))]
    for key, digits in COLUMNS.values():
        by_seed = [
            fmean(
                r["rules"][rule][key] if key in r["rules"][rule] else r[key]
                for r in records
                if r["seed"] == seed
            )
            for seed in seeds
        ]
        spread = f" ± {stdev(by_seed):.{digits}f}" if len(seeds) > 1 else ""
        columns.append(f"{fmean(by_seed):,.{digits}f}{spread}")
    return columns


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
        help=f"JSON files, or of {', '.join(CONFIGS)}",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, required=True, help="where the runs and the table go")
    parser.add_argument("--train", default="", help="flags of train.py for every run, as one string")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads of a run; 0 = its share of the cores"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, seed by seed, so that a stopped ablation has whole tables of fewer seeds."""
    args = parse_args(argv)
    for config in args.configs:
        if config not in CONFIGS and not Path(config).is_file():
            raise UserError(f"--configs {config}: neither a JSON file nor one of {', '.join(CONFIGS)}.")
    flags = ("--train_split", *shlex.split(args.train))
    out = args.out.resolve()
    runs = [
        Run(scene.resolve(), config, seed, out / scene.name / Path(config).stem / str(seed), flags)
        for seed in args.seeds
        for scene in args.scenes
        for config in args.configs
    ]
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.jobs)

    def finish(run: Run) -> dict[str, Any]:
        return run.scores() or run.execute(threads)

    records = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for record in tqdm(pool.map(finish, runs), total=len(runs), desc="Ablation"):
            records.append(record)
            write_json(out / "results.json", records)
            write_text(out / "table.md", table(records))
    print(table(records))


if __name__ == "__main__":
    run_command(main)
