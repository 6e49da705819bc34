"""`python -m diff_gaussian_rasterization`: what this installation can do, and if it cannot use a GPU, why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from diff_gaussian_rasterization import MAX_IDENTITY_CHANNELS, _core, instruction_set
from diff_gaussian_rasterization.availability import cuda_problem, describe_build, driver_version

HERE = Path(__file__).resolve().parent


def shadowed_copies(path: list[str]) -> list[Path]:
    """Other packages of this name on `path`, such as the original rasterizer's."""
    found = {Path(folder).resolve() / HERE.name for folder in path}
    return sorted(copy for copy in found if copy != HERE and copy.is_dir())


def describe_torch() -> str:
    """PyTorch's version, its CUDA, and the GPUs that it sees."""
    built_with = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    seen = ", ".join(f"{gpu.name} (compute capability {gpu.major}.{gpu.minor})" for gpu in gpus)
    return f"{torch.__version__} with {built_with}; it sees {seen or 'no GPU'}"


def report() -> Iterator[str]:
    """The lines of the report."""
    driver, problem = driver_version(), cuda_problem()
    supports = f"up to CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "none found"
    yield f"diff_gaussian_rasterization {version('diff-gaussian-rasterization')} in {HERE}"
    yield f"identity channels:  up to {MAX_IDENTITY_CHANNELS}"
    yield f"CPU core:           {instruction_set()} (of {', '.join(_core.instruction_sets())})"
    yield f"CPU threads:        {torch.get_num_threads()}"
    yield f"CUDA part:          {describe_build()}"
    yield f"NVIDIA driver:      {supports}"
    yield f"PyTorch:            {describe_torch()}"
    yield f"tensors on a GPU:   {'work' if problem is None else f'do not work: {problem}'}"
    for copy in shadowed_copies(sys.path):
        yield f"not used:           {copy}, another package of this name; uninstall one of the two"


if __name__ == "__main__":
    print("\n".join(report()))
