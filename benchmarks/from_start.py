"""Trains a scene from the start with two builds and several seeds: does one reach the PSNR of the other?

    python benchmarks/from_start.py --before TREE[:SITE] --after TREE[:SITE] --scene data/demo --json F

TREE and SITE as alternate.py takes them. Builds whose gradients differ in the last bits train different
models: the differences grow until another Gaussian is split, and then a seed's PSNR moves as far as that of
another seed would. A pair of runs tells nothing, so the means are compared. The script fails where `after` is
worse by more than two standard errors of their difference, and says how much worse it may be all the same.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from benchmarks import machine
from benchmarks.alternate import located
from utils.errors import UserError, run_command
from utils.json_files import write_json

QUICK_START = (
    "--config_file config/gradiseg/train.json --train_split --schedule_scale 0.13 --max_gaussians 50000 "
    "--densify_grad_threshold 6e-4"
)
RUN = """
import json, sys
import utils.openmp
import train
groups = train.parse(train.GROUPS, sys.argv[2:], prog="train.py", description="")
args, pipe, opt, gradiseg, repair, run = groups
train.torch.set_num_threads(pipe.threads)
train.seed_everything(run.seed)
scene = train.Scene(args, train.GaussianModel(args.sh_degree, "cpu"), device="cpu")
schedule = train.Schedule(opt, gradiseg, repair).scaled(opt.schedule_scale)
training = train.Training(args, schedule, scene)
train.keep_freed_memory()
for _ in range(int(sys.argv[1])):
    training.step()
print(json.dumps({**training.test()[0], "num_gaussians": training.model.num_gaussians}))
"""


def score(build: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """PSNR of the test views, and the number of Gaussians, after the first iterations of a training."""
    tree, environment = located(build)
    given = ["-s", str(Path(options.scene).resolve()), "-m", "", "--device", "cpu"]
    given += ["--seed", str(seed), "--threads", str(options.threads), *shlex.split(options.train)]
    command = [sys.executable, "-c", RUN, str(options.iterations), *given]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{build}, seed {seed}: {done.stderr.strip()[-500:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def summary(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """Means, deviations between seeds, the difference of the means and its standard error."""
    deviations = {"before": statistics.stdev(before), "after": statistics.stdev(after)}
    error = (deviations["before"] ** 2 / len(before) + deviations["after"] ** 2 / len(after)) ** 0.5
    means = {"before": statistics.mean(before), "after": statistics.mean(after)}
    figures = {f"mean_{name}": mean for name, mean in means.items()}
    figures |= {f"deviation_{name}": deviation for name, deviation in deviations.items()}
    return figures | {"difference": means["after"] - means["before"], "standard_error": error}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, report.

    Raises: UserError where the mean is lower than chance explains.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--before", required=True, metavar="TREE[:SITE]")
    parser.add_argument("--after", required=True, metavar="TREE[:SITE]")
    parser.add_argument("--scene", required=True, help="scene folder with a test split")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)), help="two at least")
    parser.add_argument("--iterations", type=int, default=1000, help="after which PSNR is taken")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train", default=QUICK_START, help="flags of train.py")
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args(argv)
    runs: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for seed in options.seeds:
        for name, scores in runs.items():
            scores.append(score(getattr(options, name), seed, options))
            print(f"seed {seed}, {name}: PSNR {scores[-1]['psnr']:.2f}", flush=True)
    figures = summary(*([run["psnr"] for run in scores] for scores in runs.values()))
    about = {name: getattr(options, name) for name in ("seeds", "iterations", "threads", "train")}
    result: dict[str, Any] = {"scene": Path(options.scene).name, **about, "runs": runs, "psnr": figures}
    if options.json:
        write_json(options.json, result | {"environment": machine.environment()})
    difference, chance = figures["difference"], 2 * figures["standard_error"]
    print(f"PSNR {difference:+.2f} dB, with {chance:.2f} to either side by chance")
    if difference + chance < 0:
        raise UserError(
            f"--after loses {-difference:.2f} dB of PSNR, more than seeds explain ({chance:.2f})."
        )


if __name__ == "__main__":
    run_command(main)
