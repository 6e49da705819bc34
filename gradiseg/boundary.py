"""Boundary steps: Gaussians comply with their owners, in space and in their encodings.

After IGD, every `boundary_interval`-th iteration renders beside the identity encodings a code of each
Gaussian's owner (`gradiseg.votes`): 1 in the owner's channel. So channel c of the map E is the mass of label
c in a pixel, and their sum the accumulated alpha A. The loss is the mass that stands in a pixel of another
label, A - E[label], in the mean over the pixels. It has no gradient to the codes, but one to positions,
shapes and opacities (compare BEA-GS): a Gaussian that reaches into another object's pixels draws back.

Pixels teach encodings as ever. Where one still names another object than its owner, it learns its owner
itself, by cross-entropy of its own class, which reaches those that hardly a pixel supervises, too. So ids by
encoding, as Gaussian Grouping's scripts read them, and by votes become the same. Those that agree are left to
the pixels: they are what draws a mask's outline finer than Gaussians are.

A label of the masks bends geometry where it is wrong, so a pixel counts only where its label has the majority
of E already, or as much of it as suffices for this label. Owners are frozen for `RENEWAL` iterations: a
Gaussian that changed hands in every step would go nowhere.

There are 16 channels. Where there are more labels, some share one, but none whose pixels touch, as far as
that is possible.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from fused_losses import linear_cross_entropy
from torch import Tensor

from gradiseg.classifier import IGNORED, IdentityClassifier
from gradiseg.votes import Votes
from scene.ply import IDENTITY_DIM

WEIGHT = 0.2  # of the loss beside that of colour, in training; 0.5 takes 0.2 dB from one scene of four
AGREEMENT = 0.5  # probability of the owner from which an encoding is left to the pixels
FROZEN = ("owners", "decided", "pull", "of_label")  # between elections
RENEWAL = 500  # iterations between elections, see `Training.elect_owners`


class BoundaryLoss:
    """`weight` times the loss, with the owners that it holds the Gaussians to.

    Attributes: `owners` (N,) int64, the dense label of every Gaussian's owner; `decided` (N,) bool, whether
    votes gave it that one; `pull` (N,) float32, of its encoding to the owner; `of_label` (K,) int64, the
    channel of every label; all empty before `renew`. `elected`: the iteration of the last election.
    `sufficient` (K,), of each label: the share of a pixel's largest channel that its own must have for the
    pixel to count; 1 where None.
    """

    def __init__(self, weight: float = WEIGHT) -> None:
        self.weight = weight
        self.elected = 0
        self.sufficient: Tensor | None = None
        self.owners = self.of_label = torch.zeros(0, dtype=torch.int64)
        self.decided = torch.zeros(0, dtype=torch.bool)
        self.pull = torch.zeros(0)

    def is_due(self, iteration: int, num_gaussians: int) -> bool:
        """Whether owners are to be found anew before a boundary step."""
        return len(self.owners) != num_gaussians or iteration - self.elected >= RENEWAL

    def renew(self, iteration: int, votes: Votes, class_ids: Tensor, labels: Iterable[Tensor]) -> None:
        """Take over owners by `votes`; `labels`: the dense labels (H, W) of all views, negative = none."""
        self.elected = iteration
        count = class_ids.numel()
        views = labels if count > IDENTITY_DIM else ()  # with a channel each, it does not matter who touches
        self.of_label = share_channels(touching(views, count)).to(class_ids.device)
        self.owners = torch.searchsorted(class_ids, votes.ids)
        self.decided = votes.decide
        # NumPy adds in one order; torch's mean would depend on the number of threads
        mean = float(votes.mass.cpu().numpy().mean(dtype=np.float64))
        self.pull = (votes.mass / max(mean, 1e-9)).clamp_min(1.0)

    @property
    def codes(self) -> Tensor:
        """What is rendered beside the identity encodings: (N, 16)."""
        return torch.nn.functional.one_hot(self.of_label[self.owners], IDENTITY_DIM).float()

    def __call__(self, rendered: Tensor, labels: Tensor) -> Tensor:
        """The weighted loss of the rendered codes (16, H, W) against dense labels (H, W)."""
        label = labels.long().clamp_min(0)  # (H, W)
        own = rendered.gather(0, self.of_label[label][None])[0]
        needed = rendered.detach().amax(0)
        if self.sufficient is not None:
            needed = needed * self.sufficient[label]
        counts = (labels >= 0) & (own.detach() >= needed)
        wrong = rendered.sum(0) - own
        return self.weight * (wrong * counts).mean()

    def of_encodings(
        self, encodings: Tensor, classifier: IdentityClassifier, scale: float | Tensor
    ) -> Tensor:
        """`scale` times the cross-entropy of encodings (N, 16) that disagree with the owner by the votes.

        The mean is over all N; the others count 0. The gradient of one that colours more pixels than the mean
        grows with them, for so does the pixels' against it: a single large one, half an object's and half the
        table's, would keep the wrong id. The classifier gets no gradient: it answers for pixels.
        """
        with torch.no_grad():
            logits = classifier(encodings)  # (N, K)
            log_probability = logits.gather(1, self.owners[:, None])[:, 0] - logits.logsumexp(1)
        learns = self.decided & (log_probability < math.log(AGREEMENT))
        labels = torch.where(learns, self.owners, IGNORED)
        pulled = torch.lerp(encodings.detach(), encodings, self.pull[:, None])  # the same, but its gradient
        rows = pulled.T[:, None]  # (16, 1, N): to the loss a map of one row
        weight, bias = classifier.weight.detach(), classifier.bias.detach()
        scale = scale * learns.float().mean()  # the loss's own mean is over those that learn
        return linear_cross_entropy(rows, weight, bias, labels[None], ignore_label=IGNORED, scale=scale)

    def state_dict(self) -> dict[str, Any]:
        """What going on needs."""
        return {**{name: getattr(self, name) for name in FROZEN}, "elected": self.elected}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` gave."""
        for name in FROZEN:
            setattr(self, name, state[name].to(device))
        self.elected = state["elected"]


def touching(labels: Iterable[Tensor], count: int) -> Tensor:
    """Which labels have neighbouring pixels in some view: (count, count) bool, symmetric."""
    pairs = torch.zeros(count * count, dtype=torch.bool, device="cpu")
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
        return torch.arange(count, device=touching.device)
    channels = torch.full((count,), -1, device=touching.device)
    taken = torch.zeros(IDENTITY_DIM, dtype=torch.int64, device=touching.device)
    for label in torch.argsort(touching.sum(1), descending=True, stable=True).tolist():
        of_neighbours = channels[touching[label] & (channels >= 0)]
        cost = of_neighbours.bincount(minlength=IDENTITY_DIM) * (count + 1) + taken
        channels[label] = cost.argmin()
        taken[channels[label]] += 1
    return channels
