"""Ends long work between two steps instead of in the middle of one."""

import os
import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a cluster sends before it takes a machine away


def end_process(signum: int, frame: FrameType | None) -> None:
    """End by the signal as a process without a handler does."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


def own_process() -> None:
    """Tell `StopSignals` that who calls is the process: nothing goes on in it after the end."""
    signal.signal(signal.SIGTERM, end_process)


class StopSignals:
    """While it is entered, SIGINT and SIGTERM only set `received`; a second SIGINT ends the process at once.

    A second SIGTERM does not: a cluster sends it to every process, and who started this one passes his on.
    It may come late, so a command (`own_process`) that was told to end hears none any more when this is left.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = True
        if signum == signal.SIGTERM and self._previous[signal.SIGTERM] is end_process:
            self._previous[signal.SIGTERM] = signal.SIG_IGN
        if signum == signal.SIGINT:
            signal.signal(signum, self._previous[signal.SIGINT])
