"""What the engines of experiments/ cost, and what they lose when a node or the driver is killed: nothing.

    python benchmarks/bench_experiments.py --json benchmarks/results/experiments.json

Needs Ray (pip install -e '.[cluster]'), Linux, and two cores.

`lost_node`: six short trainings of the demo (seeds 0 to 5) on a Ray cluster of two nodes on this machine, two
runs at a time on each. When both runs of one node have written checkpoints, all its processes are killed by
SIGKILL. Of every run: in how many attempts it was made, from which checkpoints it went on, and whether its
PLY has the same bytes as that of a run by the engine `local` that nothing disturbed.
`lost_driver`: the same with the engine `local`, whose driver is killed once and started again.
`overhead`: twelve runs whose command sleeps for a second, two at a time: as bare processes, by `local`, and
by `ray` (its cluster started before).
"""

import argparse
import hashlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from experiments.configurations import ROOT
from experiments.engines import Engine, Local
from experiments.lock import owner_of
from experiments.processes import DONE, Outcomes
from experiments.run import Run, Step, training
from utils.errors import run_command
from utils.json_files import write_json
from utils.machine import environment

FLAGS = "--train_split -r 2 --densify_grad_threshold 6e-4 --threads 1 --schedule_scale"
DRIVER = """
import sys
from experiments.engines import Local
from experiments.run import Run
for run, outcome in Local(jobs=2, threads=1).outcomes([Run.from_json(line) for line in sys.stdin]):
    print(run.folder.name, outcome)
"""


@contextmanager
def cluster(cpus: int, nodes: int) -> Iterator[tuple[Engine, list[Any]]]:
    """A Ray cluster on this machine: the engine on it, and its nodes beside a head that does no runs."""
    import ray
    from ray.cluster_utils import Cluster

    from experiments.ray_engine import Ray

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        added = [made.add_node(num_cpus=cpus) for _ in range(nodes)]
        yield Ray(made.address, threads=1), added
    finally:
        ray.shutdown()
        made.shutdown()


def trainings(out: Path, scale: float) -> list[Run]:
    """Six trainings of the demo, without pictures and scores."""
    flags = [*FLAGS.split(), str(scale)]
    runs = [
        training(ROOT / "data" / "demo", out / str(seed), "gradiseg", flags, seed=seed) for seed in range(6)
    ]
    return [replace(run, steps=run.steps[:1]) for run in runs]


def descendants(process: int) -> list[int]:
    """A process and all that it started, itself first."""
    table = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = [tuple(map(int, line.split())) for line in table.splitlines()]
    found = [process]
    for parent in found:
        found += [child for child, of in parents if of == parent]
    return found


def all_done(outcomes: Outcomes) -> None:
    """Carry out runs of which none may fail."""
    for run, outcome in outcomes:
        assert outcome.state == DONE, f"{run.folder}: {outcome}"


def has_checkpoint(run: Run, groups: Collection[int] | None = None) -> bool:
    """Whether a run is being made, by one of the process groups if any are given, and has written one."""
    held = owner_of(run.lock)
    mine = held is not None and (groups is None or held[0].group in groups)
    return mine and any(run.folder.glob("chkpnt*.pth"))


def kill_node(node: Any, runs: Sequence[Run], running: int) -> int:
    """Kill a node of a cluster with all its processes once `running` runs on it have written a checkpoint."""
    raylet = node.all_processes["raylet"][0].process.pid
    while sum(has_checkpoint(run, found := descendants(raylet)) for run in runs) < running:
        time.sleep(0.1)
    for process in found:
        os.kill(process, signal.SIGKILL)
    return len(found)


def lost_node(runs: Sequence[Run]) -> dict[str, Any]:
    """Carry out the runs on two nodes of which one is lost on the way."""
    with cluster(cpus=2, nodes=2) as (engine, nodes), ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_node, nodes[0], runs, 2)
        outcomes = list(engine.outcomes(runs))
        processes = killed.result()
    return {"processes_killed": processes, "done": sum(outcome.state == DONE for _, outcome in outcomes)}


def lost_driver(runs: Sequence[Run]) -> dict[str, Any]:
    """Carry out the runs by `local`, twice started, the first time killed."""

    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin
        process.stdin.write("".join(run.to_json() + "\n" for run in runs))
        process.stdin.close()
        process.stdin = None
        return process

    driver = start()
    while sum(map(has_checkpoint, runs)) < 2:
        time.sleep(0.1)
    driver.kill()
    driver.communicate()
    answers, _ = start().communicate()
    return {"done": sum(f"state='{DONE}'" in line for line in answers.splitlines())}


def compare(runs: Sequence[Run], reference: Sequence[Run]) -> list[dict[str, Any]]:
    """Attempts and checkpoints of every run, and whether its model has the bytes of the reference."""
    table = []
    for run, other in zip(runs, reference, strict=True):
        (model,), (expected,) = (one.folder.glob("point_cloud/*/point_cloud.ply") for one in (run, other))
        resumed = [line.split()[-1] for line in run.log.read_text().splitlines() if "goes on from" in line]
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        same = digest == hashlib.sha256(expected.read_bytes()).hexdigest()
        attempts = len(run.record()["attempts"])
        table.append({"attempts": attempts, "went_on_from": resumed, "same_bytes": same, "sha256": digest})
    return table


def sleepers(out: Path) -> list[Run]:
    """Twelve runs of a second."""
    command = ("-c", "import pathlib, sys, time; time.sleep(1); pathlib.Path(sys.argv[1]).touch()")
    return [
        Run(out, out / str(index), (Step("sleep", ((*command, str(out / str(index) / "made")),), "made"),))
        for index in range(12)
    ]


def overhead(out: Path) -> dict[str, Any]:
    """Of twelve runs, two at a time: seconds of wall time, and of the processes' CPU time (not of Ray's)."""

    def bare(run: Run) -> None:
        run.folder.mkdir(parents=True)
        subprocess.run([sys.executable, *run.steps[0].commands[0]], check=True)

    def measured(name: str, carry_out: Callable[[list[Run]], object]) -> dict[str, float]:
        (out / name).mkdir()
        wall, before = time.perf_counter(), os.times()
        carry_out(sleepers(out / name))
        after, wall = os.times(), time.perf_counter() - wall
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return {"wall": round(wall, 2), "cpu": round(cpu, 2)}

    def by(engine: Engine) -> Callable[[list[Run]], object]:
        return lambda runs: all_done(engine.outcomes(runs))

    with ThreadPoolExecutor(2) as pool:
        record: dict[str, Any] = {"bare": measured("bare", lambda runs: list(pool.map(bare, runs)))}
    record["local"] = measured("local", by(Local(jobs=2, threads=1)))
    start = time.perf_counter()
    with cluster(cpus=2, nodes=1) as (engine, _):
        record["start_of_a_cluster"] = round(time.perf_counter() - start, 2)
        record["ray"] = {"wall": measured("ray", by(engine))["wall"]}
    return record | {"load_of_the_machine": os.getloadavg()[0]}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the record goes")
    parser.add_argument("--schedule_scale", type=float, default=0.02, help="length of the trainings")
    args = parser.parse_args(argv)
    record: dict[str, Any] = {
        "command": "python benchmarks/bench_experiments.py --json benchmarks/results/experiments.json",
        "environment": {**environment(threads=1), "ray": importlib.metadata.version("ray")},
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        record["overhead"] = overhead(out)
        print(record["overhead"], flush=True)
        undisturbed = trainings(out / "undisturbed", args.schedule_scale)
        all_done(Local(jobs=2, threads=1).outcomes(undisturbed))
        for name, carry_out in {"lost_node": lost_node, "lost_driver": lost_driver}.items():
            runs = trainings(out / name, args.schedule_scale)
            record[name] = {**carry_out(runs), "runs": compare(runs, undisturbed)}
            print(name, record[name], flush=True)
    write_json(args.json, record)


if __name__ == "__main__":
    run_command(main)
