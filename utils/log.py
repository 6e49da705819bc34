"""What commands tell beside their results: the lines of the logger `gradiseg` and the progress bars.

The library never asks whether it may speak. It logs and draws bars; both show where the logger is enabled for
INFO, which `set_up` decides once a command. A program that imports the library and sets nothing up sees
warnings alone.
"""

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

logger = logging.getLogger("gradiseg")

Item = TypeVar("Item")


def set_up(quiet: bool) -> None:
    """Send the lines to stderr: warnings alone if `quiet`. A command that has `--quiet` begins with it."""
    logging.basicConfig(format="%(message)s")  # of other libraries: warnings, as without it
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def bar(
    items: Iterable[Item] | None = None,
    what: str = "",
    total: int | None = None,
    *,
    leave: bool = False,
    **settings: Any,
) -> "tqdm[Item]":
    """tqdm's bar over `items`, or one to `update` by hand up to `total`; hidden unless INFO is logged.

    It is written to files, too: those who follow a run by its log read it there.
    leave: it stays when it is full.
    settings: further ones of tqdm.
    """
    hidden = not logger.isEnabledFor(logging.INFO)
    return tqdm(items, what, total, leave=leave, disable=hidden, **settings)
