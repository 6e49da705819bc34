"""The processes of a run: a worker for each (experiments/worker.py), below it the command of the moment."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from experiments.configurations import ROOT
from experiments.run import Run

DONE, FAILED, STOPPED = "done", "failed", "stopped"
PR_SET_PDEATHSIG = 1  # sys/prctl.h


@dataclass(frozen=True)
class Outcome:
    """How a run ended on a machine: `done`, `failed`, or `stopped` where it can go on from a checkpoint."""

    state: str
    message: str = ""
    host: str = ""

    @classmethod
    def here(cls, state: str, message: str = "") -> "Outcome":
        """On this machine."""
        return cls(state, message, socket.gethostname())


Outcomes = Generator[tuple[Run, Outcome], None, None]  # what an engine yields


def start(run: str, threads: int, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A worker for a run (`Run.to_json`), in a process group of its own, which ends when this thread does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.worker"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent(),
    )
    assert process.stdin
    process.stdin.write(run)
    process.stdin.close()
    process.stdin = None
    return process


def outcome_of(process: subprocess.Popen[str]) -> Outcome:
    """Wait for a worker; one that dies without an answer was `stopped`."""
    answer, errors = process.communicate()
    try:
        return Outcome(**json.loads(answer))
    except (ValueError, TypeError):
        if process.returncode < 0:
            return Outcome.here(STOPPED, f"its worker was killed by signal {-process.returncode}.")
        return Outcome.here(FAILED, (errors.strip().splitlines() or ["its worker said nothing"])[-1])


def end_with_parent() -> Callable[[], None] | None:
    """For a child process to call first: SIGTERM reaches it when this thread ends. Linux only."""
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before
            os._exit(1)

    return arrange
