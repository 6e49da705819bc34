"""A signal asks for the end once; a second Ctrl-C is obeyed."""

import signal

import pytest

from utils.stop_signals import SIGNALS, StopSignals


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
