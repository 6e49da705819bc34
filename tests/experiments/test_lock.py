"""The lock of a run's folder: one owner, seen with its age; the dead lose it, the living do not."""

import json
import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from experiments import lock
from experiments.lock import Owner, hold, owner_of
from utils.errors import UserError

DEAD = 2**22 + 7  # above the largest process number of Linux


def never() -> None:
    """The lock must not be lost."""
    raise AssertionError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    for name, value in {"HEARTBEAT": 0.05, "STALE": 0.4, "POLL": 0.01}.items():
        monkeypatch.setattr(lock, name, value)


def write(path: Path, **changes: object) -> Owner:
    """A lock of somebody else."""
    owner = replace(Owner.me(), **changes)  # type: ignore[arg-type]
    path.write_text(json.dumps(asdict(owner)))
    return owner


def test_a_lock_names_its_owner_and_age_and_goes_with_the_block(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.lock"
    assert owner_of(path) is None
    with hold(path, never):
        time.sleep(0.3)
        found = owner_of(path)
        assert found and found[0].group == os.getpgrp() and found[1] < 0.25  # renewed since
    assert not path.exists()


def test_what_the_living_hold_is_refused_with_owner_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    owner = write(path)
    with pytest.raises(UserError, match=f"process group {owner.group} on {owner.host}"), hold(path, never):
        raise AssertionError
    assert json.loads(path.read_text()) == asdict(owner)


def test_the_dead_of_this_machine_lose_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    write(path, group=DEAD)
    assert owner_of(path) is None
    started = time.monotonic()
    with hold(path, never):
        assert time.monotonic() - started < 0.3


@pytest.mark.parametrize("changes", [{"host": "far"}, {"boot": "before"}])
def test_the_silent_of_another_machine_lose_it_after_a_while(tmp_path: Path, changes: dict[str, str]) -> None:
    path = tmp_path / "run.lock"
    write(path, **changes)
    os.utime(path, (4e9, 4e9))  # clocks need not agree
    started = time.monotonic()
    with hold(path, never):
        assert time.monotonic() - started > 0.4


def test_one_of_another_machine_that_renews_it_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    owner = write(path, host="far")
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="on far"), hold(path, never):
            raise AssertionError
    finally:
        stop.set()
        thread.join()
    assert json.loads(path.read_text()) == asdict(owner)


def test_an_owner_that_slept_learns_that_it_lost_the_lock(tmp_path: Path) -> None:
    path, lost = tmp_path / "run.lock", threading.Event()
    with hold(path, lost.set):
        other = write(path, host="far")
        assert lost.wait(5)
    assert json.loads(path.read_text()) == asdict(other)  # and leaves it alone


def test_of_many_who_want_it_one_has_it_at_a_time(tmp_path: Path) -> None:
    path, inside = tmp_path / "run.lock", threading.Semaphore(0)
    company: list[bool] = []  # of each that had it: whether another had it too
    write(path, group=DEAD)

    def work() -> None:
        try:
            with hold(path, never):
                company.append(inside.acquire(blocking=False))
                inside.release()
                time.sleep(0.02)
                inside.acquire()
        except UserError:
            pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert company and not any(company)


def test_an_empty_or_torn_lock_is_free(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    for text in ("", '{"host": "a"', "[]"):
        path.write_text(text)
        with hold(path, never):
            pass
