"""What carries out runs: `local`, processes on this machine; experiments/ray_engine.py, on a cluster.

An engine takes runs and yields each with its `Outcome` as it ends, in any order. It knows nothing of
trainings: where a run stands is written in the run's folder, by which all engines go on.
"""

import argparse
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Protocol

from experiments import processes
from experiments.processes import Outcome, Outcomes
from experiments.run import Run
from utils.errors import UserError


class Engine(Protocol):
    """Carries out runs."""

    def outcomes(self, runs: Sequence[Run]) -> Outcomes:
        """Every run with how it ended. Closing the generator stops the runs, which save checkpoints."""


class Local:
    """Processes on this machine, `jobs` at a time: each with a GPU of its own where there are any.

    Args:
        jobs: runs at a time; 0 = one per GPU, one on a machine without.
        threads: CPU threads of each; 0 = its share of the cores.
    """

    def __init__(self, jobs: int = 0, threads: int = 0) -> None:
        gpus = visible_gpus()
        self.jobs = jobs or max(1, len(gpus))
        self.threads = threads or max(1, cores() // self.jobs)
        self.slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for index in range(self.jobs):
            self.slots.put({"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {})
        self.processes: set[subprocess.Popen[str]] = set()
        self.starting = threading.Lock()
        self.stopped = False

    def outcomes(self, runs: Sequence[Run]) -> Outcomes:
        """See `Engine`."""
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = {pool.submit(self._perform, run): run for run in runs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                self._stop()

    def _perform(self, run: Run) -> Outcome:
        environment = self.slots.get()
        try:
            with self.starting:
                if self.stopped:
                    return Outcome(processes.STOPPED)
                process = processes.start(run.to_json(), self.threads, environment)
                self.processes.add(process)
            outcome = processes.outcome_of(process)
            self.processes.discard(process)
            return outcome
        finally:
            self.slots.put(environment)

    def _stop(self) -> None:
        with self.starting:
            self.stopped = True
            for process in self.processes:
                process.terminate()


def visible_gpus() -> list[str]:
    """Names by which CUDA_VISIBLE_DEVICES gives a process one of the GPUs that this one may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name and name != "-1"]
    if not shutil.which("nvidia-smi"):
        return []
    answer = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    lines = answer.stdout.splitlines() if answer.returncode == 0 else []
    return [str(index) for index, line in enumerate(line for line in lines if line.startswith("GPU "))]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of an engine, the same in every command that has one."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--jobs",
        type=_count,
        default=0,
        help="runs at a time on a machine; 0 = one per GPU, one on a machine without",
    )
    group.add_argument(
        "--threads", type=_count, default=0, help="CPU threads of a run; 0 = its share of the cores"
    )
    group.add_argument(
        "--address",
        help="run on a Ray cluster: HOST:PORT of its head, auto for the one that runs on this machine, local "
        "to start one here (docs/cluster.md)",
    )


def choose(args: argparse.Namespace) -> Engine:
    """The engine that the options ask for.

    Raises: UserError where the cluster cannot be reached or Ray is not installed.
    """
    if args.address is None:
        return Local(args.jobs, args.threads)
    try:
        from experiments.ray_engine import Ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError("--address needs Ray. Install it with pip install -e '.[cluster]'.") from error
    return Ray(args.address, args.jobs, args.threads)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return int(text)
