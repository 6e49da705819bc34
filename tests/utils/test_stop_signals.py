"""A signal asks for the end once; a second Ctrl-C is obeyed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils.stop_signals import SIGNALS, StopSignals, own_process

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_only_asks(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopSignals() as stop:
        received = [stop.received]
        signal.raise_signal(number)
        assert [*received, stop.received] == [False, True]
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_second_ctrl_c_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_is_the_first_one_on_another_way() -> None:
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert stop.received


def test_without_a_signal_the_handlers_come_back() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(RuntimeError), StopSignals():
        raise RuntimeError
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize(("number", "after"), [(signal.SIGTERM, signal.SIG_IGN), (signal.SIGINT, None)])
def test_a_process_that_was_told_to_end_hears_no_late_sigterm(
    number: signal.Signals, after: signal.Handlers | None
) -> None:
    own_process()
    owned = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        signal.raise_signal(number)
    assert signal.getsignal(signal.SIGTERM) == (owned if after is None else after)


def test_a_command_without_long_work_ends_by_sigterm() -> None:
    code = "import signal, utils.errors as e; e.run_command(lambda: signal.raise_signal(signal.SIGTERM))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    assert ended.returncode == -signal.SIGTERM
