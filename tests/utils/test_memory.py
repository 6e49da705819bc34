"""utils/memory.py, in a process of its own: what it asks of the C library lasts as long as the process."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAP = """
import ctypes, resource
from utils import memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def touched():  # page faults of 20 MB that are taken, written and freed again
    before = faults()
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(20 * 2**20)))
    ctypes.memset(block, 1, 20 * 2**20)
    libc.free(block)
    return faults() - before

def heap():  # (bytes, flags) of every stretch of the heap
    stretches, mine = [], False
    for line in open("/proc/self/smaps"):
        head = line.split()
        if "-" in head[0] and not head[0].endswith(":"):
            mine = head[-1] == "[heap]"
            begin, end = (int(part, 16) for part in head[0].split("-"))
        elif mine and head[0] == "VmFlags:":
            stretches.append((end - begin, head[1:]))
    return stretches
"""
NONE = "there is nothing to ask of another C library"
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason=NONE)


def run(code: str) -> None:
    command = [sys.executable, "-c", HEAP + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_freed_is_not_mapped_again() -> None:
    run("""
assert touched() > 1000 and touched() > 1000  # by pages of 4 kB, each time
memory.keep_freed_memory()
touched()
assert touched() < 20
""")


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="a kernel without them")
def test_the_heap_grows_on_large_pages_once() -> None:
    run("""
memory.keep_freed_memory()
memory.keep_freed_memory()
large = [size for size, flags in heap() if "hg" in flags]
assert sum(large) == memory.ROOM, large
""")
