"""What an experiment tells while it goes on: a live table in a terminal, a line per event elsewhere.

Where a run stands is read from its folder (lock and log), so that the table is the same for all engines.
"""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.lock import owner_of
from experiments.processes import DONE, FAILED, Outcome
from experiments.run import Run
from utils.files import last_line

REFRESH = 2.0  # seconds between looks at the folders
RUNNING, WAITING = "running", "waiting"
BAR = re.compile(r"(?P<what>[\w ]+): *(?P<percent>\d+)%\|.*\[[\d:?]+<(?P<left>[\d:?]+)")
UP, CLEAR = "\x1b[{}A\r", "\x1b[J"  # cursor up by some lines; clear from there


class Board:
    """The states of the runs below the folder `out`."""

    def __init__(self, runs: Sequence[Run], out: Path) -> None:
        self.runs, self.out = runs, out
        self.outcomes: dict[Path, Outcome] = {}
        self.live = sys.stderr.isatty()
        self.started = time.monotonic()
        self._shown = 0  # lines on the screen
        self._lock = threading.Lock()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the table on the screen up to date during the block."""
        stop = threading.Event()

        def refresh() -> None:
            while not stop.wait(REFRESH):
                self._draw()

        thread = threading.Thread(target=refresh, daemon=True)
        if self.live:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if self.live:
                thread.join()
                self._draw()

    def note(self, run: Run, outcome: Outcome) -> None:
        """A run has ended."""
        self.outcomes[run.folder] = outcome
        if self.live:
            self._draw()
        else:
            state, where, what = self.row(run)
            print(f"{self.summary()}: {where} {state} {what}".rstrip(), file=sys.stderr, flush=True)

    def name(self, run: Run) -> str:
        """A run's folder below `out`."""
        return os.path.relpath(run.folder, self.out)

    def row(self, run: Run) -> tuple[str, str, str]:
        """State, name, and what there is to say of a run."""
        if outcome := self.outcomes.get(run.folder):
            host = f"{outcome.host}: " if outcome.message and outcome.host else ""
            return outcome.state, self.name(run), f"{host}{outcome.message}"
        if held := owner_of(run.lock):
            return RUNNING, self.name(run), f"{held[0].host}: {progress(last_line(run.log))}"
        return WAITING, self.name(run), ""

    def summary(self) -> str:
        """How many runs are in each state."""
        states = [self.row(run)[0] for run in self.runs]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        return f"{len(states)} run{'s' * (len(states) > 1)} after {minutes} min {seconds} s: {counts}"

    def lines(self, width: int, height: int) -> list[str]:
        """The table: running runs first, then failed ones, then the rest as far as there is room."""
        order = {RUNNING: 0, FAILED: 1, WAITING: 3, DONE: 4}
        rows = sorted(map(self.row, self.runs), key=lambda row: order.get(row[0], 2))
        column = max(len(row[1]) for row in rows)
        text = [f"  {state:8} {name:{column}}  {what}".rstrip() for state, name, what in rows]
        if len(text) > height - 2:
            text = [*text[: height - 3], f"  and {len(text) - height + 3} more"]
        return [line[: width - 1] for line in [self.summary(), *text]]

    def _draw(self) -> None:
        with self._lock:
            lines = self.lines(*shutil.get_terminal_size())
            back = UP.format(self._shown) if self._shown else ""
            sys.stderr.write(back + CLEAR + "\n".join(lines) + "\n")
            sys.stderr.flush()
            self._shown = len(lines)


def progress(line: str) -> str:
    """What the last line of a log says of progress and time left."""
    if bar := BAR.search(line):
        return f"{bar['what'].strip()} {bar['percent']} %, {bar['left']} left"
    return line
