"""Ends long work between two steps instead of in the middle of one."""

import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a cluster sends before it takes a machine away


class StopSignals:
    """While it is entered, SIGINT and SIGTERM only set `received`; a second SIGINT ends the process at once.

    A second SIGTERM does not: a cluster sends it to every process, and who started this one passes his on. It
    may come late, so that a process which was told to end ignores SIGTERM from then on: it is on its way out.
    """

    def __init__(self) -> None:
        self.received = self._terminated = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            ending = number == signal.SIGTERM and self._terminated
            signal.signal(number, signal.SIG_IGN if ending else handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = True
        self._terminated |= signum == signal.SIGTERM
        if signum == signal.SIGINT:
            signal.signal(signum, self._previous[signal.SIGINT])
