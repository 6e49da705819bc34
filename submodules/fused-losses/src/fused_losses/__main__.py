"""`python -m fused_losses`: what this build holds and what runs here."""

from __future__ import annotations

from importlib.metadata import version

import torch

from fused_losses import _C


def main() -> None:
    print(f"fused_losses {version('fused-losses')}, torch {torch.__version__}")
    print(f"instruction set: {_C.isa()} ({8 * _C.vector_bytes()}-bit vectors)")
    print(f"available here:  {', '.join(_C.available_isas())} (FUSED_LOSSES_ISA chooses)")
    openmp = "OpenMP" if _C.has_openmp else "built without OpenMP: one thread is used"
    print(f"threads:         {torch.get_num_threads()} ({openmp})")


if __name__ == "__main__":
    main()
