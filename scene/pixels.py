"""Photographs and masks of the views: in memory while they fit, read again when needed where they do not.

Every view is read once at the start, which also shows that every file can be read. What fits the budget
stays, in the order of the views: every training pass shows every view once, so that no other choice would be
read less often. One thread reads the others, a step ahead where somebody says which comes next. None of it
changes a value.
"""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

RECENT = 3  # views beyond the budget that are held at once: the one shown, the next, and one to spare
SHARE_OF_MEMORY = 0.5  # of what is available at the start, where no budget is given


@dataclass(frozen=True)
class Pixels:
    """What a view holds at the working resolution: photograph (3,H,W) uint8 and id map (H,W), or None."""

    photograph: torch.Tensor | None
    objects: torch.Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return sum(tensor.nbytes for tensor in (self.photograph, self.objects) if tensor is not None)

    def to(self, device: torch.device | str) -> "Pixels":
        """The same on `device`."""
        moved = (None if t is None else t.to(device) for t in (self.photograph, self.objects))
        return Pixels(*moved)

    def pinned(self) -> "Pixels":
        """The same in page-locked memory, from which a GPU copies while the host goes on."""
        locked = (None if t is None else t.pin_memory() for t in (self.photograph, self.objects))
        return Pixels(*locked)


class PixelStore:
    """The memory that all views of a scene share; `megabytes` 0 takes half of what is available."""

    def __init__(self, megabytes: int = 0) -> None:
        self.left = megabytes * 2**20 if megabytes else round(SHARE_OF_MEMORY * available_memory())
        self._thread = ThreadPoolExecutor(1, "pixels")
        self._recent: OrderedDict[Callable[[], Pixels], Future[Pixels]] = OrderedDict()

    def keeps(self, pixels: Pixels) -> bool:
        """Whether they still fit; if so, they are counted."""
        fits = pixels.nbytes <= self.left
        self.left -= pixels.nbytes if fits else 0
        return fits

    def read(self, load: Callable[[], Pixels]) -> "Future[Pixels]":
        """Start to read what `load` returns, unless that is under way or in memory."""
        if load not in self._recent:
            self._recent[load] = self._thread.submit(load)
            if len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        self._recent.move_to_end(load)
        return self._recent[load]


def available_memory() -> int:
    """Bytes that a program can take before others are swapped out; all there could be where none can tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 2**10
    except (OSError, ValueError, StopIteration):  # not Linux
        return 2**62
