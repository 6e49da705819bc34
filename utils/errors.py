"""The one exception a user is meant to read, and how a command shows it."""

import sys
from collections.abc import Callable


class SceneError(ValueError):
    """A problem with data, options or a run folder; the message names the file, the field and the remedy."""


def run_command(main: Callable[[], None]) -> None:
    """Run an entry point; a SceneError becomes one line on stderr and exit status 2."""
    try:
        main()
    except SceneError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
