"""The engine on this machine, and an experiment on it: what runs, where, and what is told."""

import argparse
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import engines
from experiments.board import Board, progress
from experiments.configurations import ROOT
from experiments.engines import Local
from experiments.experiment import carry_out
from experiments.lock import hold
from experiments.processes import DONE, FAILED, STOPPED, Outcome, Outcomes
from experiments.run import Run
from tests.experiments.fake_runs import run_of, training_run, wait_for
from utils.errors import UserError


def options(*flags: str) -> argparse.Namespace:
    """Of an engine."""
    parser = argparse.ArgumentParser()
    engines.add_options(parser)
    return parser.parse_args(flags)


def test_each_run_has_a_gpu_of_its_own_and_its_share_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    # Each waits until both are there.
    code = (
        "import time\n(folder.parent / os.environ['CUDA_VISIBLE_DEVICES']).touch()\n"
        "while not all((folder.parent / gpu).exists() for gpu in ('4', 'GPU-7')): time.sleep(.01)\n"
        "print('threads', os.environ['OMP_NUM_THREADS'])"
    )
    runs = [run_of(tmp_path / name, step=code) for name in "ab"]
    assert [outcome.state for _, outcome in Local().outcomes(runs)] == [DONE, DONE]
    assert all("threads 3\n" in run.log.read_text() for run in runs)


@pytest.mark.parametrize(
    ("gpus", "flags", "jobs", "threads"),
    [("", [], 1, 6), ("0,1,2", [], 3, 2), ("0", ["--jobs", "2"], 2, 3), ("-1", ["--threads", "4"], 1, 4)],
)
def test_runs_at_a_time(
    monkeypatch: pytest.MonkeyPatch, gpus: str, flags: list[str], jobs: int, threads: int
) -> None:
    monkeypatch.setattr(engines, "cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    engine = engines.choose(options(*flags))
    assert isinstance(engine, Local) and (engine.jobs, engine.threads) == (jobs, threads)


def test_closing_the_engine_stops_runs_with_checkpoints_and_starts_no_other(tmp_path: Path) -> None:
    runs = [training_run(tmp_path / name, iterations=3000) for name in "abc"]
    short = training_run(tmp_path / "short")
    outcomes = Local(jobs=2).outcomes([short, *runs])
    assert next(outcomes)[0] is short
    for run in runs[:2]:
        wait_for(run.log, "started\n")
    outcomes.close()
    assert [len(list(run.folder.glob("chkpnt*.pth"))) for run in runs[:2]] == [1, 1]
    assert not runs[2].folder.exists()


def test_a_failure_stops_no_other_run_and_is_listed_with_its_log(tmp_path: Path) -> None:
    bad = run_of(tmp_path / "out" / "bad", step="sys.exit('the file is torn')")
    good = run_of(tmp_path / "out" / "good", step="")
    tabulated: list[bool] = []
    with pytest.raises(UserError, match=r"1 of 2 runs failed[\s\S]*bad: .*the file is torn") as error:
        carry_out([bad, good], tmp_path / "out", Local, lambda: tabulated.append(not good.open_steps()))
    assert str(bad.log) in str(error.value) and tabulated == [False, True]
    page = (tmp_path / "out" / "runs.html").read_text()
    assert "the file is torn" in page and "<td>done</td>" in page


def test_an_experiment_that_is_done_needs_no_engine(tmp_path: Path) -> None:
    run = run_of(tmp_path / "out" / "run", step="")
    carry_out([run], tmp_path / "out", Local, lambda: None)
    carry_out([run], tmp_path / "out", lambda: pytest.fail("there is nothing to do"), lambda: None)


def test_results_that_only_another_machine_sees_are_a_failure(tmp_path: Path) -> None:
    class Elsewhere:
        def outcomes(self, runs: list[Run]) -> Outcomes:
            yield runs[0], Outcome(DONE, host="far")

    run = run_of(tmp_path / "out" / "run", step="")
    with pytest.raises(UserError, match=r"run: far: .* Put it on a disk that all machines share"):
        carry_out([run], tmp_path / "out", Elsewhere, lambda: None)  # type: ignore[arg-type]


def test_a_full_disk_of_the_driver_is_one_sentence(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = run_of(tmp_path / "out" / "run", step="")
    with pytest.raises(UserError, match="no space left on") as error:
        carry_out([run], tmp_path / "out", Local, full)
    assert "\n" not in str(error.value)


DRIVER = """
import pathlib, sys
from experiments.engines import Local
from experiments.experiment import carry_out
from experiments.run import Run
from utils.errors import run_command
runs = [Run.from_json(line) for line in sys.stdin]
run_command(lambda: carry_out(runs, pathlib.Path(sys.argv[1]), lambda: Local(jobs=2), lambda: None))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told on Linux alone")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_lost_when_the_driver_is_killed_and_started_again(tmp_path: Path, number: int) -> None:
    runs = [training_run(tmp_path / name, iterations=60) for name in "abc"]

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRIVER, str(tmp_path)]
        streams = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=ROOT, text=True, **streams)  # type: ignore[call-overload]

    driver = start()
    assert driver.stdin
    driver.stdin.write("".join(run.to_json() + "\n" for run in runs))
    driver.stdin.close()
    driver.stdin = None
    for run in runs[:2]:
        wait_for(run.log, "started\n")
    os.kill(driver.pid, number)
    _, errors = driver.communicate()
    assert number == signal.SIGKILL or "goes on where the runs are" in errors
    _, errors = start().communicate("".join(run.to_json() + "\n" for run in runs))
    assert "3 done" in errors.splitlines()[-1]
    for index, run in enumerate(runs):
        done = json.loads((run.folder / "weights").read_text())
        assert len(done) == 60 and len(set(done)) == (2 if index < 2 else 1)


def test_the_table_shows_what_runs_with_progress_then_failures(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, step="") for name in ("done", "wait", "run", "bad", "cut")]
    board = Board(runs, tmp_path)
    board.outcomes = {
        runs[0].folder: Outcome(DONE, host="far"),
        runs[3].folder: Outcome(FAILED, "train.py: no memory", "far"),
        runs[4].folder: Outcome(STOPPED, "", "far"),
    }
    with hold(runs[2].lock, lambda: None):
        runs[2].log.write_text(
            "== train\n\rTraining:   0%| | 0/9\rTraining:  45%|##  | 4/9 [00:20<01:25, 2it/s]\r"
        )
        lines = board.lines(80, 24)
        assert [line.split()[:2] for line in lines[1:]] == [
            ["running", "run"],
            ["failed", "bad"],
            ["stopped", "cut"],
            ["waiting", "wait"],
            ["done", "done"],
        ]
        assert lines[1].endswith(": Training 45 %, 01:25 left") and lines[2].endswith(
            "far: train.py: no memory"
        )
        assert "1 done, 1 failed, 1 running, 1 stopped, 1 waiting" in lines[0]
        assert [line.split()[0] for line in board.lines(80, 4)[1:]] == ["running", "and"]
        assert max(map(len, board.lines(30, 24))) == 29


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Training: 100%|##| 9/9 [1:00:20<00:00, 2.00it/s, loss=1]", "Training 100 %, 00:00 left"),
        ("Rendering test:  50%|# | 3/6 [00:01<?, ?it/s]", "Rendering test 50 %, ? left"),
        ("error: no such file", "error: no such file"),
    ],
)
def test_progress_is_read_from_the_last_line(line: str, shown: str) -> None:
    assert progress(line) == shown


@pytest.mark.parametrize("flags", [["--jobs", "-1"], ["--threads", "many"]])
def test_a_wrong_number_is_refused(flags: list[str]) -> None:
    with contextlib.redirect_stderr(None), pytest.raises(SystemExit):
        options(*flags)
