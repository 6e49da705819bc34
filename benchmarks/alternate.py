"""Times training steps of two builds in turns, so that a noisy machine treats both alike.

    python benchmarks/alternate.py --before TREE[:SITE] --after TREE[:SITE] --scene SCENE --threads 1 --json F

TREE is a checkout, SITE the folder with its compiled packages (`pip install --target`), where they are not
this Python's. Every turn is a process of its own: warm-up, then steps, of which it reports the median wall
time and the mean CPU time. The ratio is the median over the pairs of turns. Neither build is compared with
the reference here: bench_train_step.py does that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from benchmarks import machine
from utils.errors import UserError, run_command
from utils.json_files import write_json

TURN = """
import argparse, gc, json, statistics, sys, tempfile, time
import utils.openmp
import torch
from benchmarks import bench_train_step as bench
from utils.memory import keep_freed_memory
given = json.loads(sys.argv[1])
torch.set_num_threads(given["threads"])
with tempfile.TemporaryDirectory() as folder:
    training = bench.prepare(argparse.Namespace(**given), folder)
    keep_freed_memory()
    gc.freeze()
    for _ in range(bench.WARM_UP):
        training.step()
    walls, cpu = [], time.process_time()
    for _ in range(given["steps"]):
        start = time.perf_counter()
        training.step()
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
print(json.dumps({"wall_ms": 1e3 * statistics.median(walls), "fastest_ms": 1e3 * min(walls),
                  "cpu_ms": 1e3 * cpu / len(walls)}))
"""


def turn(build: str, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step of one build."""
    names = ("scene", "resolution", "threads", "steps", "num_gaussians")
    given = {name: getattr(options, name) for name in names}
    tree, _, site = build.partition(":")
    path = os.pathsep.join(part for part in (site, tree) if part)
    command = [sys.executable, "-c", TURN, json.dumps(given | {"checkpoint": options.model})]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{build}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All turns, their medians, and after : before."""
    turns: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for index in range(options.turns):
        for name in ("before", "after") if index % 2 == 0 else ("after", "before"):
            turns[name].append(turn(getattr(options, name), options))
    result: dict[str, Any] = {"turns": turns, "median": {}, "ratio": {}}
    for figure in turns["before"][0]:
        columns = {name: [entry[figure] for entry in entries] for name, entries in turns.items()}
        pairs = zip(columns["after"], columns["before"], strict=True)
        result["median"][figure] = {name: statistics.median(column) for name, column in columns.items()}
        result["ratio"][figure] = statistics.median(after / before for after, before in pairs)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the turns, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--before", required=True, metavar="TREE[:SITE]")
    parser.add_argument("--after", required=True, metavar="TREE[:SITE]")
    parser.add_argument("--scene", required=True, help="scene folder")
    parser.add_argument("-r", "--resolution", type=int, default=1, help="as train.py takes it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--num_gaussians", type=int, help="resample the scene's points to this many")
    parser.add_argument("--model", help="chkpnt*.pth of train.py to go on from")
    parser.add_argument("--turns", type=int, default=4, help="of each build")
    parser.add_argument("--steps", type=int, default=20, help="in a turn")
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args(argv)
    about = {name: getattr(options, name) for name in ("resolution", "threads", "num_gaussians", "steps")}
    result = {
        "scene": Path(options.scene).name,
        **about,
        **compare(options),
        "environment": machine.environment(),
    }
    print(json.dumps({"median": result["median"], "ratio": result["ratio"]}, indent=2))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_command(main)
