"""Memory that a loop frees and takes again."""

import ctypes

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
