"""Long work that writes nothing before all of it is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from utils.errors import UserError
from utils.log import bar
from utils.stop_signals import StopSignals


@contextmanager
def all_or_nothing(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar over `total` steps: what to call after each of them.

    Raises: UserError from that call once SIGINT or SIGTERM has come.
    """
    with StopSignals() as stop, bar(what=what, total=total) as steps:

        def told() -> None:
            steps.update()
            if stop.received:
                raise UserError("stopped. Nothing was written; start the same command again.")

        yield told
