"""Whether this package takes tensors on a GPU, and if not, why.

Every package of this repository holds this file (a test compares).
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import torch

from . import _build

PACKAGE = __name__.rpartition(".")[0]


def cuda_problem(device: torch.device | None = None) -> str | None:
    """Why tensors on `device` (by default the current GPU) cannot be used, one sentence; None if they can."""
    return _problem(None if device is None else device.index)


def describe_build() -> str:
    """What the build made of CUDA."""
    if not _build.CUDA:
        return f"not built: {_build.PROBLEM}"
    return f"built with nvcc {_build.NVCC} for {_build.ARCHITECTURES}"


@lru_cache
def _problem(index: int | None) -> str | None:
    if not _build.CUDA:
        return (
            f"{PACKAGE} was built without CUDA ({_build.PROBLEM}). Install it again where nvcc is, "
            "with GRADISEG_CUDA=on."
        )
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is a build without CUDA. Install one with CUDA."
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU. Check nvidia-smi and CUDA_VISIBLE_DEVICES."
    driver, toolkit = driver_version(), int(_build.NVCC.partition(".")[0])
    if driver // 1000 < toolkit:
        return (
            f"the driver supports CUDA {driver // 1000}.{driver % 1000 // 10}, but {PACKAGE} was built with "
            f"nvcc {_build.NVCC}. Update the driver, or build with an older nvcc."
        )
    capability = torch.cuda.get_device_capability(index)
    if is_covered(capability, _build.ARCHITECTURES):
        return None
    major, minor = capability
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor}, but {PACKAGE} was "
        f"built for {_build.ARCHITECTURES}. Install it again with GRADISEG_CUDA_ARCHITECTURES={major}{minor} "
        "(75 is the oldest that can be)."
    )


def is_covered(capability: tuple[int, int], architectures: str) -> bool:
    """Whether code for `architectures` ("80 90+PTX") runs on a GPU of `capability`.

    Machine code runs on later GPUs of its major version, PTX on all later GPUs.
    """
    for architecture in architectures.split():
        number = int(architecture.partition("+")[0])
        if number // 10 == capability[0] and number % 10 <= capability[1]:
            return True
        if architecture.endswith("+PTX") and divmod(number, 10) <= capability:
            return True
    return False


def driver_version() -> int:
    """The newest CUDA that the driver supports, 1000 * major + 10 * minor; 0 without a driver."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value
