"""Ends long work between two steps instead of in the middle of one."""

import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a cluster sends before it takes a machine away


class StopSignals:
    """While it is entered, SIGINT and SIGTERM only set `received`; a second SIGINT ends the process at once.

    A second SIGTERM does not: a cluster sends it to every process, and who started this one passes his on.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = True
        if signum == signal.SIGINT:
            signal.signal(signum, self._previous[signal.SIGINT])

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
