"""Runs on a Ray cluster: Ray places them, counts CPUs and GPUs, and starts runs of lost nodes again.

Every node needs this repository and its environment at the same path, and the runs' folders on a disk that
all share; scenes may lie on the nodes' own disks. What a node is told is a run as text, by which it starts
the same worker as the engine `local` does; so a run that was cut off goes on from its newest checkpoint.
"""

import logging
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tells nobody that it runs

import ray
from ray import cloudpickle

from experiments.configurations import ROOT
from experiments.processes import FAILED, STOPPED, Outcome, Outcomes
from experiments.run import Run
from utils.errors import UserError

RETRIES = 5  # of a run whose node or worker was lost
SECONDS_TO_CONNECT = 5.0
QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


class Ray:
    """The cluster at `address`, or one started here for `local`.

    Args:
        address: HOST:PORT of its head, `auto`, or `local`.
        jobs: runs at a time on a node; 0 = one per GPU, one on a cluster without GPUs.
        threads: CPUs that a run takes; 0 = its share of those of the smallest node that has what it needs.
    Raises: UserError where the cluster cannot be reached or has another version of Ray or Python.
    """

    def __init__(self, address: str, jobs: int = 0, threads: int = 0) -> None:
        connect(address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        with_gpus = [node for node in nodes if node.get("GPU")]
        smallest = min(with_gpus or nodes, key=lambda node: node.get("CPU", 0.0))
        gpus = smallest.get("GPU", 0.0)
        jobs = jobs or max(1, int(gpus))
        self.threads = threads or max(1, int(smallest.get("CPU", 1)) // jobs)
        self.gpus = gpus / jobs if jobs > gpus else float(bool(gpus))

    def outcomes(self, runs: Sequence[Run]) -> Outcomes:
        """See `engines.Engine`."""
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a node without this code can say so
        task = ray.remote(perform).options(
            num_cpus=self.threads,
            num_gpus=self.gpus,
            max_retries=RETRIES,
            retry_exceptions=[ChildProcessError],
        )
        waiting = {task.remote(run.to_json(), str(ROOT), self.threads): run for run in runs}
        try:
            while waiting:
                for reference in ray.wait(list(waiting))[0]:
                    yield waiting.pop(reference), outcome_of(reference)
        finally:
            for reference in waiting:
                ray.cancel(reference)


def perform(run: str, root: str, threads: int) -> dict[str, str]:
    """On a node: start a worker for a run and wait for its outcome.

    Raises: ChildProcessError where the run was cut off, so that Ray starts it again, there or elsewhere.
    """
    import dataclasses
    import importlib
    import os
    import socket
    import sys

    if not os.path.isdir(os.path.join(root, "experiments")):
        message = (
            f"{root}: not there on {socket.gethostname()}. Every node needs this repository at that path."
        )
        return {"state": "failed", "message": message, "host": socket.gethostname()}
    sys.path.insert(0, root)
    processes = importlib.import_module("experiments.processes")
    process = processes.start(run, threads)
    try:
        outcome = processes.outcome_of(process)
    except BaseException:  # the driver cancelled it
        process.terminate()
        process.wait()
        raise
    if outcome.state == processes.STOPPED:
        raise ChildProcessError(f"{outcome.host}: {outcome.message}")
    return dataclasses.asdict(outcome)


def outcome_of(reference: "ray.ObjectRef[dict[str, str]]") -> Outcome:
    """What became of a run, also where Ray gave it up."""
    try:
        return Outcome(**ray.get(reference))
    except ray.exceptions.TaskCancelledError:
        return Outcome(STOPPED)
    except (ray.exceptions.RayError, ChildProcessError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return Outcome(FAILED, f"lost {RETRIES + 1} times: {line}")


def connect(address: str) -> None:
    """Join the cluster, or start one.

    Raises: UserError, see `Ray`.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        except OSError as error:
            raise UserError(
                f"--address {address}: nothing answers there ({error.strerror or error}). Start the cluster "
                "with ray start --head, and give the address that it prints."
            ) from error
    elif address not in ("auto", "local"):
        raise UserError(f"--address {address}: give HOST:PORT of the cluster's head, auto or local.")
    try:
        ray.init(address, include_dashboard=False if address == "local" else None, **QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        here = f"Ray {ray.__version__}, Python {sys.version.split()[0]}"
        problem = (
            f"the cluster has another version of Ray or Python than this environment ({here}). Install the "
            "same on both."
            if "ersion mismatch" in str(error)
            else "no Ray cluster that this machine is part of. Start one with ray start --head, or join it "
            "with ray start --address."
        )
        raise UserError(f"--address {address}: {problem}") from error
