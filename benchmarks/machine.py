"""How the benchmarks measure: times, processes, and what the machine reaches."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from diff_gaussian_rasterization import instruction_set

from utils import machine


def timed(call: Callable[[], Any], repeats: int = 5) -> tuple[Any, float]:
    """What `call` returns, and the milliseconds of the fastest of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return result, 1e3 * min(times)


def ceilings() -> dict[str, float]:
    """What this machine reaches now with the current number of threads: products and copies by PyTorch."""
    a, b, big = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.zeros(1 << 25)
    target = torch.empty_like(big)
    return {
        "threads": torch.get_num_threads(),
        "gflops": 2 * 1024**3 / timed(lambda: a @ b)[1] * 1e-6,
        "gb_per_s": 2 * 4 * big.numel() / timed(lambda: target.copy_(big))[1] * 1e-6,
    }


def environment() -> dict[str, Any]:
    """Where the figures come from."""
    return machine.environment() | {"instruction_set": instruction_set()}


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """The result of `function` in a process of its own, whose peak of memory is its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.common", "gradiseg.progress"])  # once for all processes
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(function, *args).result()
