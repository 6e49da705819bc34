"""Times training steps of two builds in turns, so that a noisy machine treats both alike.

    python benchmarks/alternate.py --before TREE[:SITE] --after TREE[:SITE] --scene SCENE --threads 1 --json F

TREE is a checkout, SITE the folder with its compiled packages (`pip install --target`), where they are not
this Python's. Every build is a process of its own; both train in short turns, one while the other waits, and
report the median wall time and the mean CPU time of a turn's steps. The ratio is the median over the pairs of
turns. Neither build is compared with the reference here: bench_train_step.py does that.
"""

import argparse
import contextlib
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

BUILD = """
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
    for _ in sys.stdin:  # a line asks for a turn
        walls, cpu = [], time.process_time()
        for _ in range(given["steps"]):
            start = time.perf_counter()
            training.step()
            walls.append(time.perf_counter() - start)
        cpu = time.process_time() - cpu
        figures = {"wall_ms": statistics.median(walls), "fastest_ms": min(walls), "cpu_ms": cpu / len(walls)}
        print(json.dumps({name: 1e3 * seconds for name, seconds in figures.items()}), flush=True)
"""


def located(build: str) -> tuple[str, dict[str, str]]:
    """The checkout of TREE[:SITE], and an environment in which it and its packages come first."""
    tree, _, site = build.partition(":")
    path = os.pathsep.join(part for part in (site, tree) if part)
    return tree, os.environ | {"PYTHONPATH": path}


class Build:
    """A training of one tree in a process that waits between its turns."""

    def __init__(self, build: str, options: argparse.Namespace) -> None:
        names = ("scene", "resolution", "threads", "steps", "num_gaussians")
        given = {name: getattr(options, name) for name in names}
        self.name = build
        tree, environment = located(build)
        command = [sys.executable, "-c", BUILD, json.dumps(given | {"checkpoint": options.model})]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            cwd=tree,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def turn(self) -> dict[str, float]:
        """Milliseconds of a step, from the next few."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise UserError(f"{self.name}: {self._process.communicate()[1].strip()[-500:]}")
        figures: dict[str, float] = json.loads(line)
        return figures

    def end(self) -> None:
        """Let the process go."""
        self._process.kill()
        self._process.communicate()


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All turns, their medians, and after : before."""
    turns: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    with contextlib.ExitStack() as stack:
        builds = {name: Build(getattr(options, name), options) for name in turns}
        for build in builds.values():
            stack.callback(build.end)
        for index in range(options.turns):
            for name in ("before", "after") if index % 2 == 0 else ("after", "before"):
                turns[name].append(builds[name].turn())
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
    parser.add_argument("--turns", type=int, default=20, help="of each build")
    parser.add_argument("--steps", type=int, default=3, help="in a turn")
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
