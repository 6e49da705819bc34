"""Memory that a loop frees and takes again, and how much a process had."""

import ctypes
import resource
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MMAP_THRESHOLD = 32 * 2**20  # the largest that glibc takes
TRIM_THRESHOLD = 512 * 2**20


def keep_freed_memory() -> None:
    """Let the C library keep what is freed instead of giving it back to the system.

    Images and gradients of a training step are tens of megabytes. Given back, they return as pages that the
    system has to clear and map one by one. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def peak_memory_mb(children: bool = False) -> float:
    """Largest resident size so far, MiB: of this process, or of any of its children that have ended."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
