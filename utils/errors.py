"""Errors that a user is meant to read, and how a command shows them.

Exit status of every command: 0 done; 1 check_scene.py has found errors, or a traceback that is a fault of
this program; 2 something that the user can mend, told in one line; 130 stopped by Ctrl-C.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from utils.stop_signals import own_process

SHOWN = 5
DEBUG = "--debug"  # of every command: the traceback beside the line
REMEDIES = {
    errno.ENOSPC: "the disk is full. Free some space and run the command again (train.py: with --resume). "
    "What was saved before stays",
    errno.EDQUOT: "your quota of disk space is used up. Free some and run the command again (train.py: with "
    "--resume). What was saved before stays",
    errno.EACCES: "no permission. Change the permissions, or choose another place",
    errno.EPERM: "no permission. Change the permissions, or choose another place",
    errno.EROFS: "the disk is read-only. Choose another place",
    errno.ENOENT: "not there, or gone meanwhile. Check the path",
    errno.ENOTDIR: "a part of this path is a file, not a folder. Check the path",
    errno.EISDIR: "a folder, where a file is expected. Check the path",
    errno.EMFILE: "too many files are open. Raise the limit (ulimit -n 4096)",
    errno.EIO: "the disk reports an error. Check it, and copy the data elsewhere",
    errno.ENAMETOOLONG: "the name is too long. Choose a shorter one",
}
OUT_OF_MEMORY = (
    "Smaller images (-r 2), fewer Gaussians (--max_gaussians) or a smaller cache (--data_cache_mb) need less."
)
# How torch words a failed allocation on the CPU.
CPU_MEMORY = ("DefaultCPUAllocator", "can't allocate memory")


class UserError(ValueError):
    """A problem with data, options or a run folder; the message names the file, the field and the remedy."""


def some(names: Sequence[str]) -> str:
    """The first few of `names`, for a message, and how many there are."""
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")


def explain(error: BaseException) -> str | None:
    """What to tell a user about an error of his world, in one line; None for a fault of this program."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{where}{REMEDIES.get(error.errno or 0, error.strerror or text)}."
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return f"the GPU's memory is full ({text.split('. ')[0]}). {OUT_OF_MEMORY}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _lacks_memory(text)):
        return f"memory is full ({text or 'no more to be had'}). {OUT_OF_MEMORY}"
    return None


def run_command(main: Callable[[], None]) -> None:
    """Run an entry point; what a user can mend becomes one line on stderr and exit status 2."""
    own_process()
    debug = DEBUG in sys.argv[1:]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != DEBUG]
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def _lacks_memory(text: str) -> bool:
    return any(words in text for words in CPU_MEMORY)
