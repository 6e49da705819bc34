"""The one exception a user is meant to read, and how a command shows it."""

import sys
from collections.abc import Callable, Sequence


class UserError(ValueError):
    """A problem with data, options or a run folder; the message names the file, the field and the remedy."""


SHOWN = 5


def some(names: Sequence[str]) -> str:
    """The first few of `names`, for a message, and how many there are."""
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")


def run_command(main: Callable[[], None]) -> None:
    """Run an entry point; a UserError becomes one line on stderr and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
