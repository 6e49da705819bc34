"""Carries out one run: `python -m experiments.worker` with the run as JSON on its input.

The engines start it, so that a run is the same everywhere: it takes the folder's lock, does the steps that
are not done, each command with its output in `run.log`, keeps the record, and answers with one line of JSON
(an `Outcome`). SIGTERM, which also comes when the process that started it dies, is passed on: train.py saves
a checkpoint, and the next worker goes on from there.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.configurations import ROOT
from experiments.lock import HEARTBEAT, hold
from experiments.processes import DONE, FAILED, STOPPED, Outcome, end_with_parent
from experiments.run import Run, Step
from utils.errors import UserError
from utils.files import disk_problem, full_disk_explained, last_line
from utils.machine import environment, gpu_names
from utils.memory import peak_memory_mb

SETTINGS = {"PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "5"}  # output that one can follow, bars in few lines


class Stopped(Exception):
    """The worker was told to stop, or lost its lock."""


class Worker:
    """A run being carried out on this machine."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.process: subprocess.Popen[bytes] | None = None
        self.reason = ""  # why it has to stop
        self.waiting = True  # for the lock

    def perform(self) -> Outcome:
        """Do what is left of the run."""
        try:
            if not self.run.scene.is_dir():
                raise UserError(
                    f"{self.run.scene}: no such folder on {socket.gethostname()}. Copy the scene there "
                    "or put it on a disk that all machines share, then start the same command again."
                )
            with (
                full_disk_explained(self.run.folder),
                hold(self.run.lock, lambda: self.stop("another worker took the run")),
            ):
                self.waiting = False
                self._perform_steps()
        except UserError as error:
            return Outcome.here(FAILED, str(error))
        except Stopped:
            return Outcome.here(STOPPED, self.reason)
        except OSError as error:
            return Outcome.here(FAILED, str(error))
        return Outcome.here(DONE)

    def stop(self, reason: str) -> None:
        """End the command that runs now, which may save what it has, and start no other."""
        first, self.reason = not self.reason, self.reason or reason
        if self.process and first:
            self.process.terminate()

    def _perform_steps(self) -> None:
        steps = self.run.open_steps()
        if not steps:
            return
        record = {"scene": str(self.run.scene), **self.run.about, **self.run.record()}
        attempt = {**facts(), "started": now()}
        record.setdefault("attempts", []).append(attempt)
        try:
            for step in steps:
                self._perform(step, record)
        finally:
            attempt |= {"ended": now(), "peak_memory_mb": peak_memory_mb(children=True)}
            record["peak_memory_mb"] = max(a.get("peak_memory_mb", 0.0) for a in record["attempts"])
            self.run.write_record(record)

    def _perform(self, step: Step, record: dict[str, Any]) -> None:
        made = record["steps"].get(step.name, {})
        extra = self._start_of_training(step, made) if step.checkpoint_interval else []
        if "--resume" not in extra:
            made = {"commands": step.lines, "started": now(), "started_at": time.time(), "seconds": 0.0}
        made.pop("ended", None)
        record["steps"][step.name] = made
        self.run.write_record(record)
        started = time.perf_counter()
        try:
            for command in step.commands:
                self._call([*command, *extra], step)
            made["ended"] = now()
        except UserError as error:
            if not step.optional:
                raise
            self._note(f"{error} The run is done without its step {step.name}.")
        finally:
            made["seconds"] = round(made.get("seconds", 0.0) + time.perf_counter() - started, 3)
            self.run.write_record(record)

    def _start_of_training(self, step: Step, made: Mapping[str, Any]) -> list[str]:
        """Flags by which a training goes on from a checkpoint of its own, or replaces what is there."""
        interval = ["--checkpoint_interval", str(step.checkpoint_interval)]
        found = self._checkpoints()
        if found and made.get("commands") == step.lines and found[-1].stat().st_mtime > made["started_at"]:
            self._note(f"goes on from {found[-1].name}")
            return [*interval, "--resume"]
        return [*interval, "--overwrite"]

    def _call(self, command: Sequence[str], step: Step) -> None:
        """Run one command to its end."""
        self._go_on_or_end()
        self._note(shlex.join(["python", *command]))
        with open(self.run.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, **SETTINGS},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent(),
            )
        if self.reason:  # told while the command started
            self.process.terminate()
        while (code := self._wait()) is None:
            self._delete_checkpoints(step, keep=1)
        self.process = None
        self._go_on_or_end()
        if code:
            raise UserError(f"{command[0]}: {self._problem(code)} (log: {self.run.log})")
        self._delete_checkpoints(step, keep=0)

    def _go_on_or_end(self) -> None:
        if self.reason:
            raise Stopped

    def _wait(self) -> int | None:
        assert self.process
        try:
            return self.process.wait(HEARTBEAT)
        except subprocess.TimeoutExpired:
            return None

    def _problem(self, code: int) -> str:
        if full := disk_problem(self.run.folder):
            return full
        if code < 0:
            hint = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
            return f"killed by signal {-code} ({signal.Signals(-code).name}{hint})."
        return last_line(self.run.log)

    def _checkpoints(self) -> list[Path]:
        """Of this run, the newest last; scene.run_folder names them, but its import takes torch's seconds."""
        found = {path.stem.removeprefix("chkpnt"): path for path in self.run.folder.glob("chkpnt*.pth")}
        return [found[number] for number in sorted(filter(str.isdecimal, found), key=int)]

    def _delete_checkpoints(self, step: Step, keep: int) -> None:
        """Leave `keep` of those that nobody asked for."""
        if step.checkpoint_interval and not step.keeps_checkpoints:
            for path in self._checkpoints()[: -keep or None]:
                path.unlink(missing_ok=True)

    def _note(self, text: str) -> None:
        """A line in the log, with time and place."""
        with open(self.run.log, "a", encoding="utf-8") as log:
            print(f"== {now()} {socket.gethostname()}: {text}", file=log)


def facts() -> dict[str, Any]:
    """What figures depend on: the machine, versions, the commit."""
    threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    return {"host": socket.gethostname(), "gpu": gpu_names(), **environment(threads)}


def now() -> str:
    """The time as records and logs have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def main() -> None:
    """Carry out the run that the input describes, and answer."""
    worker = Worker(Run.from_json(sys.stdin.read()))

    def stop(signum: int, frame: FrameType | None) -> None:
        worker.stop(f"received {signal.Signals(signum).name}")
        if worker.waiting:
            raise Stopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    print(json.dumps(asdict(worker.perform())))


if __name__ == "__main__":
    main()
