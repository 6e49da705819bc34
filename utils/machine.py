"""What measured figures depend on: versions, processor, threads, commit."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any


def environment(threads: int | None = None) -> dict[str, Any]:
    """The facts by their names in records; `commit` is None where it cannot be told.

    threads: CPU threads of the work; None = those of torch here, whose import takes seconds.
    """
    if threads is None:
        import torch

        threads = torch.get_num_threads()
    return {
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "commit": commit(),
    }


def cpu_name() -> str:
    """The processor's model name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def commit() -> str | None:
    """The commit of this code, None outside a repository or without git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def gpu_names() -> list[str]:
    """Of the GPUs that this process may use, as far as the driver's own tool tells."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or not shutil.which("nvidia-smi"):
        return []
    chosen = ["-i", visible] if visible else []
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *chosen], capture_output=True, text=True
    )
    return answer.stdout.split("\n")[:-1] if answer.returncode == 0 else []
