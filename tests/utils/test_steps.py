"""Work between whose steps a signal ends it."""

import signal

import pytest

from utils.errors import UserError
from utils.steps import all_or_nothing
from utils.stop_signals import SIGNALS


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_work_after_its_step_and_nothing_is_written(number: signal.Signals) -> None:
    done = 0
    with pytest.raises(UserError, match="Nothing was written"), all_or_nothing("Work", 3) as told:
        for _ in range(3):
            done += 1
            signal.raise_signal(number)
            told()
    assert done == 1


def test_without_a_signal_all_steps_are_done() -> None:
    with all_or_nothing("Work", 3) as told:
        for _ in range(3):
            told()
