"""Whose a Gaussian is: the votes of the pixels that it colours.

w_i(c) is the sum over training views and pixels labelled c of alpha_i T_i, the weight with which Gaussian i
enters the pixel (eq. 1): exact, and one pass of the rasterizer a view for up to 64 labels
(`gaussian_renderer.contributions`).

An identity encoding is fitted to the same labels by gradient descent, beside all the other Gaussians of a
pixel; one that is seen seldom, or has moved since, may hold an encoding that none of its pixels bears out.
Its votes cannot. An id with more than half of them *owns* the Gaussian. Where none has, or hardly a pixel
sees it, the encoding decides.

Boundary steps (`gradiseg.boundary`) draw encodings to the owners, so that what reads encodings alone
(Gaussian Grouping's own scripts) cuts out the same objects.
"""

import math
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gaussian_renderer import MAPS_PER_PASS, contributions
from gradiseg.classifier import UNLABELLED
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from utils.errors import UserError
from utils.files import atomic_write

MAJORITY = 0.5  # share of the votes above which they decide
HIDDEN = 1.0  # pixels; a Gaussian with fewer votes in all training views together is seen by none

VOTING_VIEWS = 25  # enough for the owners that losses hold Gaussians to, at a third of the cost of all
LabelsOf = Callable[[Camera], Tensor]  # camera -> dense labels (H, W), negative = no vote


@dataclass(frozen=True)
class Votes:
    """The outcome for N Gaussians: the ids that own them, the largest share of the votes, all votes."""

    ids: Tensor  # (N,) int64
    share: Tensor  # (N,) float32 in [0, 1]; 0 without votes
    mass: Tensor  # (N,) float32, pixels

    @property
    def hidden(self) -> Tensor:
        """(N,) bool: seen by no training view."""
        return self.mass < HIDDEN

    @property
    def decide(self) -> Tensor:
        """(N,) bool: owned by the votes, not by the encoding."""
        return ~self.hidden & (self.share > MAJORITY)

    def impurity(self, among: Tensor | None = None) -> float:
        """Share of the votes that went to other ids than the first, over all Gaussians or `among` (N,)."""
        mass = self.mass if among is None else self.mass[among]
        share = self.share if among is None else self.share[among]
        return float((mass * (1 - share)).sum() / mass.sum().clamp_min(1e-9))


def voters(cameras: Sequence[Camera]) -> Sequence[Camera]:
    """At most `VOTING_VIEWS` of the views, spread over all."""
    return cameras[:: math.ceil(len(cameras) / VOTING_VIEWS)]


def count_votes(
    model: GaussianModel, cameras: Sequence[Camera], labels_of: LabelsOf, labels: range
) -> Tensor:
    """w_i(c) for the dense labels c in `labels`, at most `MAPS_PER_PASS`: (N, len(labels)) float32, pixels.

    Views without a mask do not vote.
    """
    votes = model.get_xyz.new_zeros(model.num_gaussians, len(labels))
    for camera in cameras:
        if not camera.is_masked:
            continue
        of_pixels = labels_of(camera).to(votes.device)  # (H, W)
        present = of_pixels.unique()
        present = present[(present >= labels.start) & (present < labels.stop)]  # (P,), the others get nothing
        if len(present):
            indicator = (of_pixels == present[:, None, None]).float()  # (P, H, W)
            votes.index_add_(1, present.long() - labels.start, contributions(camera, model, indicator))
    return votes


def lead(
    model: GaussianModel,
    cameras: Sequence[Camera],
    labels_of: LabelsOf,
    class_ids: Tensor,
    weights: Tensor | None = None,
) -> Votes:
    """The id with most of the votes of all views, for the K labels of `class_ids` (K,), majority or not.

    Id 0 where there are no votes. `weights` (K,): what a vote for each label counts, 1 where None. At most
    `MAPS_PER_PASS` labels' votes are in memory at once.
    """
    count = class_ids.numel()
    best = model.get_xyz.new_zeros(model.num_gaussians)
    mass, own = torch.zeros_like(best), torch.zeros_like(best)
    ids = torch.full_like(best, UNLABELLED, dtype=torch.int64)
    weights = best.new_ones(count) if weights is None else weights
    for first in range(0, count, MAPS_PER_PASS):
        labels = range(first, min(first + MAPS_PER_PASS, count))
        counted = count_votes(model, cameras, labels_of, labels)
        mass += counted.sum(1)
        most, winner = (counted * weights[first : labels.stop]).max(1)
        wins = most > best
        ids = torch.where(wins, class_ids.to(ids)[first + winner], ids)
        own = torch.where(wins, counted.gather(1, winner[:, None])[:, 0], own)
        best = torch.maximum(best, most)
    return Votes(ids, own / mass.clamp_min(1e-12), mass)


def elect(
    model: GaussianModel, cameras: Sequence[Camera], labels_of: LabelsOf, class_ids: Tensor, otherwise: Tensor
) -> Votes:
    """The outcome of the votes of all views for the K labels of `class_ids` (K,).

    `otherwise` (N,): the ids where votes do not decide.
    """
    votes = lead(model, cameras, labels_of, class_ids)
    return replace(votes, ids=torch.where(votes.decide, votes.ids, otherwise.long()))


def elect_by_masks(model: GaussianModel, cameras: Sequence[Camera], otherwise: Tensor) -> Votes:
    """The outcome where the masks on disk vote, of the views that have one; see `elect`."""
    present = [torch.unique(camera.objects.long()) for camera in cameras if camera.objects is not None]
    ids = torch.cat(present).unique() if present else torch.zeros(0, dtype=torch.int64)

    def labels_of(camera: Camera) -> Tensor:
        assert camera.objects is not None
        return torch.searchsorted(ids, camera.objects.long())

    return elect(model, cameras, labels_of, ids, otherwise)


def save_votes(path: str | os.PathLike[str], votes: Votes) -> None:
    """Write an .npz: `ids` int32, `share` and `mass` float32, (N,) each."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            ids=votes.ids.cpu().numpy().astype(np.int32),
            share=votes.share.cpu().numpy(),
            mass=votes.mass.cpu().numpy(),
        )


def load_votes(path: str | os.PathLike[str], model: GaussianModel) -> Votes | None:
    """The votes saved beside a model, on its device; None where there are none.

    Raises: UserError where the file cannot be read or is of another model.
    """
    if not Path(path).is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, share, mass = (torch.from_numpy(file[name]) for name in ("ids", "share", "mass"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). Remove it: encodings then say whose is what."
        ) from error
    if not ids.shape == share.shape == mass.shape == (model.num_gaussians,):
        raise UserError(
            f"{path}: {len(ids):,} Gaussians, but the model beside it has {model.num_gaussians:,}. "
            "Remove it: encodings then say whose is what."
        )
    device = model.get_xyz.device
    return Votes(ids.long().to(device), share.to(device), mass.to(device))
