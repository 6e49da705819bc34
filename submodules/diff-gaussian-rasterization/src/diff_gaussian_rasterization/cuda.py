"""The rasterizer on a GPU: what `_core` does for CPU tensors, with working memory that torch owns.

A `Frame` is what one forward pass leaves for its backward pass. Its memory comes from a pool and goes back to
it when autograd lets go of the frame; it grows and stays, so that a training loop stops allocating after its
first steps. The host reads one thing a step, the counts that the size of the lists follows from: a CUDA graph
cannot capture it.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import _core
from .availability import cuda_problem

try:
    from . import _cuda
except ImportError:  # built without CUDA: `cuda_problem` says why
    _cuda = None  # type: ignore[assignment]

__all__ = ["Frame", "frame_on"]

GROWTH = 1.25  # beyond what is asked for: the number of tile instances changes from view to view


def frame_on(device: torch.device) -> Frame:
    """A frame for tensors on `device`.

    Raises:
        ValueError: they cannot be rendered there; the message says why.
    """
    if (problem := cuda_problem(device)) is not None:
        raise ValueError(problem)
    return Frame(device)


def _use(device: torch.device) -> AbstractContextManager[Any]:
    """Launches inside go to `device`."""
    return torch.cuda.device(device)


def _stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream


class _Memory:
    """Bytes on one device, by name, that grow and stay."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.tensors: dict[str, Tensor] = {}

    @cached_property
    def counts(self) -> Tensor:
        """On the host, for the device to write to."""
        pin = self.device.type == "cuda"
        return torch.empty(_cuda.COUNT_BYTES, dtype=torch.uint8, device="cpu", pin_memory=pin)

    def at_least(self, name: str, num_bytes: int) -> int:
        """Address of `num_bytes`; what was there is lost if they had to grow."""
        if name not in self.tensors or self.tensors[name].numel() < num_bytes:
            self.tensors.pop(name, None)  # first, so that both never exist together
            size = int(GROWTH * num_bytes) + 256
            self.tensors[name] = torch.empty(size, dtype=torch.uint8, device=self.device)
        return self.tensors[name].data_ptr()


class Frame:
    """One forward pass and its backward passes, on the current stream of `device`."""

    pool: ClassVar[dict[tuple[torch.device, int], list[_Memory]]] = defaultdict(list)
    gradients: ClassVar[dict[tuple[torch.device, int], _Memory]] = {}  # needed only within a backward pass

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.workspace = _cuda.Workspace()
        self.workspace.stream = _stream(device)
        self.key = (device, self.workspace.stream)
        self.memory = self.pool[self.key].pop() if self.pool[self.key] else _Memory(device)
        self.workspace.counts = self.memory.counts.data_ptr()

    def __del__(self) -> None:
        self.pool[self.key].append(self.memory)

    def forward(self, is_double: bool, inputs: _core.Inputs, outputs: _core.Outputs) -> int:
        """Renders; returns 0 or the bits of the inputs that hold NaN or Inf."""
        if is_double and not _cuda.HAS_DOUBLE:
            raise ValueError("means3D is torch.float64; on a GPU the rasterizer takes torch.float32")
        work = self.workspace
        work.gaussians = self.memory.at_least("gaussians", _cuda.gaussian_bytes(is_double, inputs))
        with _use(self.device):
            if invalid := _cuda.prepare(is_double, work, inputs, outputs):
                return invalid
            num_bytes = _cuda.instance_bytes(is_double, inputs, work)
            work.instances = self.memory.at_least("instances", num_bytes)
            _cuda.render(is_double, work, inputs, outputs)
        return 0

    def backward(
        self,
        is_double: bool,
        inputs: _core.Inputs,
        outputs: _core.Outputs,
        output_gradients: _core.OutputGradients,
        input_gradients: _core.InputGradients,
    ) -> None:
        """Fills the input gradients from what `forward` left."""
        work = self.workspace
        if (memory := self.gradients.get(self.key)) is None:
            memory = self.gradients[self.key] = _Memory(self.device)
        work.gradients = memory.at_least("rows", _cuda.gradient_bytes(is_double, inputs, work))
        with _use(self.device):
            _cuda.backward(is_double, work, inputs, outputs, output_gradients, input_gradients)
