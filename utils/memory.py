"""Memory that a loop frees and takes again, and how much a process had."""

import ctypes
import resource
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
MMAP_THRESHOLD = 32 * 2**20  # the largest that glibc takes
TOP_PAD = 128 * 2**10  # glibc's own
MADV_HUGEPAGE = 14  # sys/mman.h of Linux
LARGE_PAGE = 2 * 2**20
ROOM = 2**30  # addresses on large pages; a page takes memory when it is first touched
TRIM_THRESHOLD = ROOM + 512 * 2**20


def keep_freed_memory() -> None:
    """Let the C library keep what is freed instead of giving it back to the system, in pages of 2 MB.

    Images and gradients of a training step are tens of megabytes. Given back, they return as pages that the
    system has to clear and map one by one. And a tile reads and writes hundreds of image rows, each in a page
    of 4 kB of its own: more than a processor remembers the addresses of. Does nothing where the C library is
    not glibc. The large pages are a wish; Linux grants it where `transparent_hugepage` is madvise or always.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
    _ask_for_large_pages(libc)


def _ask_for_large_pages(libc: ctypes.CDLL) -> None:
    """Grow the heap by ROOM at once, unless it has as much: one stretch of addresses, on which to advise."""
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    before = libc.sbrk(ctypes.c_ssize_t(0))
    libc.mallopt(M_TOP_PAD, ROOM)
    libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(MMAP_THRESHOLD - 2**16))))
    libc.mallopt(M_TOP_PAD, TOP_PAD)
    end = libc.sbrk(ctypes.c_ssize_t(0)) // LARGE_PAGE * LARGE_PAGE
    if end - before >= ROOM:
        libc.madvise(ctypes.c_void_p(end - ROOM), ctypes.c_size_t(ROOM), MADV_HUGEPAGE)


def peak_memory_mb(children: bool = False) -> float:
    """Largest resident size so far, MiB: of this process, or of any of its children that have ended."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
