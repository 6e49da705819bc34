"""A worker: does what is left of a run, keeps its record, saves what it can when it is told to stop."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import processes, worker
from experiments.configurations import ROOT
from experiments.lock import hold
from experiments.processes import DONE, FAILED, STOPPED, Outcome
from experiments.run import Run
from experiments.worker import Worker
from tests.experiments.fake_runs import run_of, training_run, wait_for


def work(run: Run) -> Outcome:
    """What a worker answers."""
    return processes.outcome_of(processes.start(run.to_json(), 1))


def test_a_run_is_the_same_after_its_way_as_text(tmp_path: Path) -> None:
    run = training_run(tmp_path / "run", config="gradiseg", seed=3)
    assert Run.from_json(run.to_json()) == run


def test_steps_are_done_once_and_the_record_says_where_and_by_which_commands(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", first="print('one')", second="print('two')")
    assert work(run).state == DONE and not run.open_steps()
    log = run.log.read_text()
    assert work(run).state == DONE and run.log.read_text() == log
    record = run.record()
    assert set(record["steps"]) == {"first", "second"} and len(record["attempts"]) == 1
    assert record["attempts"][0]["threads"] == 1 and record["attempts"][0]["torch"]
    assert record["peak_memory_mb"] > 1 and "commit" in record["attempts"][0]
    assert not run.lock.exists()


def test_changed_commands_are_done_again_with_all_that_follows(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    work(run_of(folder, first="", second="", third=""))
    changed = run_of(folder, first="", second="print('changed')", third="")
    assert [step.name for step in changed.open_steps()] == ["second", "third"]
    assert work(changed).state == DONE and not changed.open_steps()


def test_a_folder_without_a_record_counts_by_its_files(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", first="", second="")
    run.folder.mkdir()
    (run.folder / "first").touch()
    assert [step.name for step in run.open_steps()] == ["second"]
    run.forget()
    assert [step.name for step in run.open_steps()] == ["first", "second"]


def test_a_failure_is_told_by_the_last_line_and_ends_the_run(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", first="print('reading'); sys.exit('the file is torn')", second="")
    outcome = work(run)
    assert outcome.state == FAILED and "the file is torn" in outcome.message
    assert str(run.log) in outcome.message and not (run.folder / "second").exists()
    killed = work(run_of(tmp_path / "run", first="os.kill(os.getpid(), 9)"))
    assert killed.state == FAILED and "signal 9" in killed.message and "memory" in killed.message


def test_an_optional_step_may_fail_and_is_tried_again(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", first="", words="sys.exit('no model')", last="")
    run = replace(run, steps=tuple(replace(step, optional=step.name == "words") for step in run.steps))
    assert work(run).state == DONE and (run.folder / "last").exists()
    assert "done without its step words" in run.log.read_text()
    assert run.open_steps()[0].name == "words"


def test_a_missing_scene_is_one_sentence_and_leaves_no_trace(tmp_path: Path) -> None:
    run = replace(run_of(tmp_path / "run", first=""), scene=tmp_path / "nothing")
    outcome = work(run)
    assert outcome.state == FAILED and f"{tmp_path}/nothing: no such folder on " in outcome.message
    assert not run.folder.exists()


def test_a_step_is_left_out_where_the_scene_lacks_what_it_needs(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", first="", masks="")
    run = replace(run, steps=(run.steps[0], replace(run.steps[1], needs="test_mask")))
    assert work(run).state == DONE and not (run.folder / "masks").exists()
    (tmp_path / "test_mask").mkdir()
    assert [step.name for step in run.open_steps()] == ["masks"]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker, "hold", full)
    outcome = Worker(run_of(tmp_path / "run", first="")).perform()
    assert outcome.state == FAILED and "no space left on" in outcome.message and "\n" not in outcome.message


def test_sigterm_saves_a_checkpoint_from_which_the_next_worker_goes_on(tmp_path: Path) -> None:
    run = training_run(tmp_path / "run", iterations=100)
    process = processes.start(run.to_json(), 1)
    wait_for(run.log, "started\n")
    process.terminate()
    outcome = processes.outcome_of(process)
    assert outcome.state == STOPPED and "SIGTERM" in outcome.message
    (checkpoint,) = run.folder.glob("chkpnt*.pth")
    before = json.loads(checkpoint.read_text())
    assert work(run).state == DONE
    assert f"goes on from {checkpoint.name}" in run.log.read_text() and "--resume" in run.log.read_text()
    done = json.loads((run.folder / "weights").read_text())
    assert done[: len(before)] == before and len(set(done)) == 2 and len(done) == 100
    assert not list(run.folder.glob("chkpnt*.pth"))  # nobody asked for them
    assert len(run.record()["attempts"]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_waits_for_the_lock_stops_at_once(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", first="")
    with hold(run.lock, lambda: None):
        process = processes.start(run.to_json(), 1)
        handled = re.compile(r"SigCgt:\s*(\w+)")
        status = Path(f"/proc/{process.pid}/status")
        while not int(handled.findall(status.read_text())[0], 16) >> signal.SIGTERM - 1 & 1:
            time.sleep(0.02)
        process.terminate()
        assert processes.outcome_of(process) == Outcome(STOPPED, "received SIGTERM", socket.gethostname())
    assert not (run.folder / "first").exists()


def test_a_checkpoint_of_other_commands_is_not_gone_on_from(tmp_path: Path) -> None:
    run = training_run(tmp_path / "run")
    assert work(training_run(tmp_path / "run", iterations=4)).state == DONE
    (run.folder / "chkpnt2.pth").write_text("[0, 0]")
    os.utime(run.folder / "chkpnt2.pth", (1, 1))
    assert work(run).state == DONE
    assert 0 not in json.loads((run.folder / "weights").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told on Linux alone")
@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_commands_end_with_who_started_them(tmp_path: Path, victim: str) -> None:
    run = training_run(tmp_path / "run", iterations=3000)
    code = (
        "import sys, pathlib; from experiments import processes; process = processes.start(sys.argv[1], 1)\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(process.pid) + '.')\n"
        "processes.outcome_of(process)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, run.to_json()], cwd=ROOT)
    wait_for(run.log, "started\n")
    wait_for(tmp_path / "pid", ".")
    os.kill(parent.pid if victim == "parent" else int((tmp_path / "pid").read_text()[:-1]), signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 20
    while not list(run.folder.glob("chkpnt*.pth")):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert not (run.folder / "weights").exists()
