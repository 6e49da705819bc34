"""`python -m diff_gaussian_rasterization`: what this installation can do."""

import torch

from . import MAX_IDENTITY_CHANNELS, _core, instruction_set

print(
    f"CPU cores in this build that run here: {', '.join(_core.instruction_sets())} "
    f"(in use: {instruction_set()})"
)
print(
    f"threads: {torch.get_num_threads()}; identity channels: up to {MAX_IDENTITY_CHANNELS}; CUDA: not built"
)
