"""An experiment: many runs carried out by an engine, those that are done left alone, failures listed."""

import contextlib
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.board import Board
from experiments.engines import Engine
from experiments.page import write_page
from experiments.processes import DONE, FAILED, Outcome
from experiments.run import Run
from utils.errors import UserError
from utils.files import full_disk_explained


def carry_out(
    runs: Sequence[Run], out: Path, engine: Callable[[], Engine], tabulate: Callable[[], object]
) -> None:
    """Make what is not done, and keep the page of many runs up to date.

    Args:
        runs: in the order in which they start.
        out: the folder that holds their folders.
        engine: called where there is something to do.
        tabulate: called before the first run and after every one that ends well.
    Raises: UserError where two runs have one folder; that lists the runs that failed, once all others are
        done, or that Ctrl-C or SIGTERM has stopped the runs, which have then saved checkpoints.
    """
    folders = [run.folder for run in runs]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise UserError(
            f"{twice}: two runs would share it, as runs are called after the last part of the scene's path, "
            "the configuration's name and the seed. Name each once, and call folders and files differently."
        )
    board = Board(runs, out)
    with full_disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
        _carry_out(runs, board, engine, tabulate)
    failed = [board.row(run) for run in runs if board.outcomes[run.folder].state != DONE]
    if failed:
        lines = "".join(f"\n  {name}: {what}" for _, name, what in failed)
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed. The same command again goes on with them.{lines}"
        )


def _carry_out(
    runs: Sequence[Run], board: Board, engine: Callable[[], Engine], tabulate: Callable[[], object]
) -> None:
    board.outcomes |= {run.folder: Outcome(DONE) for run in runs if not run.open_steps()}
    tabulate()
    waiting = [run for run in runs if run.folder not in board.outcomes]
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if waiting:
            _follow(waiting, board, engine(), tabulate)
    except KeyboardInterrupt as stop:
        raise UserError("stopped. The same command again goes on where the runs are.") from stop
    finally:
        signal.signal(signal.SIGTERM, previous)
        write_page(board)


def _follow(runs: Sequence[Run], board: Board, engine: Engine, tabulate: Callable[[], object]) -> None:
    with board.shown(), contextlib.closing(engine.outcomes(runs)) as outcomes:
        for run, outcome in outcomes:
            if outcome.state == DONE and any(not step.optional for step in run.open_steps()):
                problem = f"{run.folder} here lacks its results. Put it on a disk that all machines share."
                outcome = Outcome(FAILED, problem, outcome.host)
            board.note(run, outcome)
            if outcome.state == DONE:
                tabulate()
            write_page(board)
