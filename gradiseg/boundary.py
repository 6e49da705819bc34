"""Boundary steps: Gaussians that reach into another object's pixels draw back.

After IGD, every `boundary_interval`-th iteration renders in place of the identity encodings a code of each
Gaussian's owner (`gradiseg.votes`): 1 in the owner's channel. So channel c of the map E is the mass of label
c in a pixel, and their sum the accumulated alpha A. The loss is the mass that stands in a pixel of another
label, A - E[label], in the mean over the pixels. It has no gradient to the codes, but one to positions,
shapes and opacities (compare BEA-GS).

A label of the masks bends geometry where it is wrong, so a pixel counts only where its label has the majority
of E already. Owners are frozen for `RENEWAL` iterations: a Gaussian that changed hands in every step would go
nowhere.

There are 16 channels. Where there are more labels, some share one, but none whose pixels touch, as far as
that is possible.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradiseg.votes import Votes
from scene.ply import IDENTITY_DIM

WEIGHT = 0.5  # of the loss beside that of colour
RENEWAL = 500  # iterations between elections, each of which renders all views


class BoundaryLoss:
    """The loss, with the owners that it holds the Gaussians to.

    Attributes: `of_gaussian` (N,) int64 and `of_label` (K,) int64, the channel of every Gaussian's owner and
    of every dense label, empty before `renew`; `elected`, the iteration of the last election.
    """

    def __init__(self) -> None:
        self.elected = 0
        self.of_gaussian = self.of_label = torch.zeros(0, dtype=torch.int64)

    def is_due(self, iteration: int, num_gaussians: int) -> bool:
        """Whether owners are to be found anew before a boundary step."""
        return len(self.of_gaussian) != num_gaussians or iteration - self.elected >= RENEWAL

    def renew(self, iteration: int, votes: Votes, class_ids: Tensor, labels: Iterable[Tensor]) -> None:
        """Take over owners by `votes`; `labels`: the dense labels (H, W) of all views, negative = none."""
        self.elected = iteration
        self.of_label = share_channels(touching(labels, class_ids.numel())).to(class_ids.device)
        self.of_gaussian = self.of_label[torch.searchsorted(class_ids, votes.ids)]

    @property
    def codes(self) -> Tensor:
        """What is rendered in place of the identity encodings: (N, 16)."""
        return torch.nn.functional.one_hot(self.of_gaussian, IDENTITY_DIM).float()

    def __call__(self, rendered: Tensor, labels: Tensor) -> Tensor:
        """The weighted loss of the rendered codes (16, H, W) against dense labels (H, W)."""
        channel = self.of_label[labels.long().clamp_min(0)]  # (H, W)
        wrong = rendered.sum(0) - rendered.gather(0, channel[None])[0]
        counts = (labels >= 0) & (rendered.detach().argmax(0) == channel)
        return WEIGHT * (wrong * counts).mean()

    def state_dict(self) -> dict[str, Any]:
        """What going on needs."""
        return {"of_gaussian": self.of_gaussian, "of_label": self.of_label, "elected": self.elected}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` gave."""
        self.of_gaussian, self.of_label = (state[name].to(device) for name in ("of_gaussian", "of_label"))
        self.elected = state["elected"]


def touching(labels: Iterable[Tensor], count: int) -> Tensor:
    """Which labels have neighbouring pixels in some view: (count, count) bool, symmetric."""
    pairs = torch.zeros(count * count, dtype=torch.bool)
    for view in labels:
        for one, two in ((view[:, 1:], view[:, :-1]), (view[1:], view[:-1])):
            meets = (one != two) & (one >= 0) & (two >= 0)
            pairs[(one[meets].long() * count + two[meets].long()).cpu()] = True
    matrix = pairs.view(count, count)
    return matrix | matrix.T


def share_channels(touching: Tensor) -> Tensor:
    """A channel below `IDENTITY_DIM` for every label: (K, K) bool -> (K,) int64.

    One each where they suffice; else those with most neighbours choose first, the channel that fewest of
    their neighbours have, among them the one that fewest labels have.
    """
    count = len(touching)
    if count <= IDENTITY_DIM:
        return torch.arange(count)
    channels = torch.full((count,), -1)
    taken = torch.zeros(IDENTITY_DIM, dtype=torch.int64)
    for label in torch.argsort(touching.sum(1), descending=True, stable=True).tolist():
        of_neighbours = channels[touching[label] & (channels >= 0)]
        cost = of_neighbours.bincount(minlength=IDENTITY_DIM) * (count + 1) + taken
        channels[label] = cost.argmin()
        taken[channels[label]] += 1
    return channels
