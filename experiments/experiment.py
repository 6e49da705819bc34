"""An experiment: many runs carried out by an engine, those that are done left alone, failures listed."""

import contextlib
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.board import Board
from experiments.engines import Engine
from experiments.run import Run
from experiments.worker import DONE, FAILED, Outcome
from utils.errors import UserError


def carry_out(
    runs: Sequence[Run],
    out: Path,
    engine: Callable[[], Engine],
    after_each: Callable[[], None],
) -> None:
    """Make what is not done.

    Args:
        runs: in the order in which they start.
        out: the folder that holds their folders.
        engine: called where there is something to do.
        after_each: called once before and after every run that ends well, to bring tables up to date.
    Raises: UserError that lists the runs that failed, once all others are done, or that Ctrl-C or SIGTERM
        has stopped the runs, which have then saved checkpoints.
    """
    board = Board(runs, out)
    for run in runs:
        if not run.open_steps():
            board.outcomes[run.folder] = Outcome(DONE)
    after_each()
    waiting = [run for run in runs if run.folder not in board.outcomes]
    if waiting:
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _follow(waiting, board, engine(), after_each)
        except KeyboardInterrupt as stop:
            raise UserError("stopped. The same command again goes on where the runs are.") from stop
        finally:
            signal.signal(signal.SIGTERM, previous)
    failed = [run for run in runs if board.outcomes[run.folder].state != DONE]
    if failed:
        lines = [f"  {name}: {what}" for _, name, what in map(board.row, failed)]
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed. The same command again goes on with them.\n"
            + "\n".join(lines)
        )


def _follow(runs: Sequence[Run], board: Board, engine: Engine, after_each: Callable[[], None]) -> None:
    with board.shown(), contextlib.closing(engine.outcomes(runs)) as outcomes:
        for run, outcome in outcomes:
            if outcome.state == DONE and any(not step.optional for step in run.open_steps()):
                problem = (
                    f"its results are not in {run.folder} here. Put it on a disk that all machines share."
                )
                outcome = Outcome(FAILED, problem, outcome.host)
            board.note(run, outcome)
            if outcome.state == DONE:
                after_each()
