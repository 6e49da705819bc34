"""The device that a command computes on (`--device`)."""

import importlib
import importlib.util
import logging
from pathlib import Path

import torch

from utils.errors import UserError
from utils.log import logger

DEVICES = ("auto", "cpu", "cuda")
# The compiled packages, and a name by which ours is told from another package of the same name.
PACKAGES = {
    "diff_gaussian_rasterization": "instruction_set",
    "simple_knn": "directional_knn",
    "fused_losses": "l1_ssim",
}


def select_device(name: str) -> torch.device:
    """The device of `--device`: `auto` takes the GPU where PyTorch and our packages can use one.

    Where it cannot, the log says why; as a warning if the machine has a GPU after all.

    Raises:
        UserError: `cuda` where no GPU can be used, or another project's package in the place of ours.
    """
    for package, ours in PACKAGES.items():
        _check_origin(package, ours)
    problem = None if name == "cpu" else gpu_problem()
    if name == "cuda" and problem is not None:
        raise UserError(f"--device cuda: {problem}")
    if name != "cpu" and problem is None:
        return torch.device("cuda", torch.cuda.current_device())
    if problem is not None:
        level = logging.WARNING if Path("/proc/driver/nvidia/gpus").is_dir() else logging.INFO
        logger.log(level, "Computing on the CPU: %s", problem)
    return torch.device("cpu")


def gpu_problem() -> str | None:
    """One sentence on why no GPU can be used here; None if one can."""
    for package in PACKAGES:
        if importlib.util.find_spec(f"{package}.availability") is None:
            return f"{package} is of an older version. Install it again: bash scripts/setup_env.sh"
        problem: str | None = importlib.import_module(f"{package}.availability").cuda_problem()
        if problem is not None:
            return problem
    return None


def _check_origin(package: str, ours: str) -> None:
    module = importlib.import_module(package)
    if not hasattr(module, ours):
        raise UserError(
            f"{module.__file__}: another project's {package}, which comes before ours on Python's path. "
            "Uninstall it, or run in the environment that scripts/setup_env.sh makes."
        )
