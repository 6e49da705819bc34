"""Outlines of labels moved to where the photographs change.

Masks that are a pixel too small in every view agree with each other, so that no vote of the views finds the
error; but the photographs show where an object ends. Along the normal of an outline between the labels a and
b, the colour changes from that of b to that of a: from 0 to 1, if the mean colours beyond `PLATEAU` pixels on
both sides are called so. Single profiles err by texture, shadow and wobble; the mean over all outline pixels
of a pair of labels, in all views, shows where their outline should be. Objects darken each other where they
meet, so that the mean profile is not a step between two constants, and where it crosses 1/2 is not the whole
truth: a step between two lines is fitted, too.

An offset is believed as far as all evidence agrees: both estimates, from all views and from either half of
them, less `UNCERTAINTY`, since exact masks are found to be off as well where a shadow or a bevel runs along
an outline. Where they differ in sign nothing moves. Nor does the outline of an object that is thinner than a
profile is long: its profiles show its far side too, and come from the places where its mask is too wide.

Colours are compared in linear light: of a pixel half covered by a bright and by a dark object, the sRGB value
is far nearer to the bright one, which would make bright objects too large.

Masks of large pictures err by more pixels, and the pictures' edges are wider. All lengths here hold for
pictures of up to `LARGEST_DIAGONAL`; a larger one is measured at that size, its outlines move at its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FloatArray = NDArray[np.float64]

LARGEST_DIAGONAL = 800  # pixels
REACH = 5  # pixels that a profile follows the normal to either side
PLATEAU = 3  # pixels from the outline from which on a profile shows one object only
GAMMA = 2.2  # linear light = sRGB value ** GAMMA, nearly
NOISE = 0.001  # variance of colours that counts as none
LARGEST_CONTRAST = 20.0  # squared contrast / variance that still adds weight to a profile
FEWEST_PROFILES = 150  # of a pair of labels in each half of the views; with fewer, its outlines stay
LARGEST_OFFSET = 1.5  # pixels; what lies further away is another edge
THINNEST = 2 * (REACH + LARGEST_OFFSET)  # pixels; outlines of thinner labels stay
UNCERTAINTY = 0.2  # pixels by which the photographs' edge may lie beside the object's
BLUR = 0.6  # pixels, standard deviation: of the step in a profile
RIDGE = 1.0  # on the slopes of the lines, else a shallow ramp could pass for a step
STEPS = torch.arange(-REACH, REACH + 1)
EDGES = np.arange(-2.5, 2.501, 0.05)  # candidates for the place of the step


def _disc(radius: float) -> Tensor:
    """Steps (dy, dx) to all pixels nearer than `radius` but the centre, nearest first: (n, 2) int64."""
    reach = range(-math.floor(radius), math.floor(radius) + 1)
    steps = [(y, x) for y in reach for x in reach if 0 < math.hypot(y, x) <= radius]
    return torch.tensor(sorted(steps, key=lambda step: (math.hypot(*step), step)))


NORMAL_DISC = _disc(3.2)  # pixels that give an outline its direction


def pixels_per_step(labels: Tensor) -> float:
    """Pixels of a view with these labels (H, W) for one pixel of the size at which it is measured."""
    return max(1.0, math.hypot(*labels.shape) / LARGEST_DIAGONAL)


class OutlineProfiles:
    """Sums of profiles for all pairs of K labels; NumPy adds in one order, whatever the number of threads.

    Axis 0 of `sums`, `weights` and `profiles` is the half of the views, every second one, that they are of.
    """

    def __init__(self, count: int) -> None:
        self.count, self.views = count, 0
        self.sums = np.zeros((2, count * count, len(STEPS)))  # of profile * weight
        self.weights, self.profiles = np.zeros((2, count * count)), np.zeros((2, count * count))
        self.pixels, self.points = np.zeros(count), np.zeros(count)  # of a label, of its outlines

    def add_view(self, labels: Tensor, photograph: Tensor) -> None:
        """The outlines of labels (H, W), negative = none, in a photograph (3, H, W), sRGB in [0, 1]."""
        half, self.views = self.views % 2, self.views + 1
        labels, linear = _measured(labels, _linear_light(photograph.float()))
        outlines = _outline_points(labels)
        if not len(outlines.first):
            return
        self.pixels += np.bincount(labels[labels >= 0].cpu().numpy(), minlength=self.count)
        for side in (outlines.first, outlines.second):
            self.points += np.bincount(side.cpu().numpy(), minlength=self.count)
        profile, weight = _profiles(outlines, labels, linear)
        shown = (weight > 0).nonzero()[:, 0]
        pair = (outlines.first * self.count + outlines.second)[shown].cpu().numpy()
        weighted = (profile * weight[:, None])[shown].double().cpu().numpy()
        length = self.count * self.count
        for step in range(len(STEPS)):
            self.sums[half, :, step] += np.bincount(pair, weighted[:, step], minlength=length)
        self.weights[half] += np.bincount(pair, weight[shown].double().cpu().numpy(), minlength=length)
        self.profiles[half] += np.bincount(pair, minlength=length)

    @property
    def thickness(self) -> FloatArray:
        """Mean thickness of every label, (K,) pixels of the size at which it is measured.

        Twice its area over the length of its outline: the width of a rod, half of the diameter of a disc.
        """
        thickness: FloatArray = 2 * self.pixels / np.maximum(self.points, 1)
        return thickness

    def edges(self) -> FloatArray:
        """[a, b], a < b: steps to the side of a from their outline to the edge, NaN = unknown; (K, K)."""
        edges = np.full(self.count * self.count, np.nan)
        for pair in self._measurable():
            whole = _estimates(self.sums[:, pair].sum(0) / self.weights[:, pair].sum())
            if max(map(abs, whole)) <= LARGEST_OFFSET:
                edges[pair] = _agreed(whole)
        return edges.reshape(self.count, self.count)

    def offsets(self) -> Tensor:
        """[a, b] = steps by which label a should give way to b: (K, K) float32, antisymmetric."""
        offsets = np.zeros(self.count * self.count)
        edges, thick = self.edges().ravel(), self.thickness >= THINNEST
        for pair in self._measurable():
            if np.isfinite(edges[pair]) and thick[pair // self.count] and thick[pair % self.count]:
                halves = self.sums[:, pair] / self.weights[:, pair, None]
                offset = _agreed((edges[pair], *_estimates(halves[0]), *_estimates(halves[1])))
                offsets[pair] = math.copysign(max(abs(offset) - UNCERTAINTY, 0.0), offset)
        believed = torch.from_numpy(offsets.reshape(self.count, self.count)).float()
        return believed - believed.T

    def _measurable(self) -> list[int]:
        """The pairs, a * K + b, with enough profiles in both halves."""
        return np.flatnonzero((self.profiles >= FEWEST_PROFILES).all(0)).tolist()


def move_outlines(labels: Tensor, offsets: Tensor, dither: float) -> Tensor:
    """Labels (H, W), negative = none, with the outlines of all pairs moved by `offsets` (K, K), pixels.

    Pixels are whole and offsets are not: a `dither` in [-0.5, 0.5), another one for each view, moves each
    outline by the right number of pixels in the mean over the views.
    """
    across = _disc(float(offsets.abs().max()) + 1)  # no outline moves further, whatever the dither
    reach = int(across.max())
    padded = F.pad(labels, (reach, reach, reach, reach), value=-1)
    y, x = _near_outlines(labels, reach).nonzero().unbind(1)
    own = labels[y, x].long()
    result, to_do = own.clone(), torch.ones_like(own, dtype=torch.bool)
    for step_y, step_x in across.tolist():  # nearest first
        other = padded[y + reach + step_y, x + reach + step_x].long()
        meets = to_do & (other >= 0) & (other != own)
        offset = offsets[own, other.clamp_min(0)]
        signed_dither = torch.where(own < other, dither, -dither)
        gives_way = (offset != 0) & (math.hypot(step_y, step_x) - 0.5 < offset + signed_dither)
        result = torch.where(meets & gives_way, other, result)
        to_do &= ~meets
    moved = labels.clone()
    moved[y, x] = result.to(labels.dtype)
    return moved


def _near_outlines(labels: Tensor, reach: int) -> Tensor:
    """(H, W) bool: pixels with a label whose square of `reach` pixels to all sides holds another value."""
    values = labels.float()[None]

    def largest(values: Tensor) -> Tensor:
        along_x = F.max_pool2d(values, (1, 2 * reach + 1), 1, (0, reach))
        return F.max_pool2d(along_x, (2 * reach + 1, 1), 1, (reach, 0))

    return (largest(values) != -largest(-values))[0] & (labels >= 0)


def _linear_light(photograph: Tensor) -> Tensor:
    """sRGB as linear light. torch's pow rounds the last elements of every thread's share in another way."""
    return photograph.log().mul_(GAMMA).exp_()


def _measured(labels: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (H, W) and colours (3, H, W) at the size at which they are measured."""
    step = pixels_per_step(labels)
    if step == 1:
        return labels, linear
    size = [round(length / step) for length in labels.shape]
    shrunk = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].to(labels.dtype)
    return shrunk, F.interpolate(linear[None], size, mode="bilinear", antialias=True)[0]


@dataclass
class _Outlines:
    """P points between neighbouring pixels of different labels, `first` < `second`."""

    position: Tensor  # (P, 2) y, x in pixels; the centre of pixel 0 is 0
    normal: Tensor  # (P, 2) unit vector to the first label's side
    first: Tensor  # (P,) int64
    second: Tensor  # (P,) int64


def _outline_points(labels: Tensor) -> _Outlines:
    """All points halfway between two horizontal or vertical neighbours that have different labels."""
    positions, pairs = [], []
    for step in ((0, 1), (1, 0)):
        one = labels[: labels.shape[0] - step[0], : labels.shape[1] - step[1]]
        two = labels[step[0] :, step[1] :]
        pixel = ((one != two) & (one >= 0) & (two >= 0)).nonzero()  # (n, 2)
        positions.append(pixel + 0.5 * torch.tensor(step, device=pixel.device))
        pairs.append(torch.stack([one[pixel[:, 0], pixel[:, 1]], two[pixel[:, 0], pixel[:, 1]]], 1))
    position, pair = torch.cat(positions), torch.cat(pairs).long()
    first, second = pair.amin(1), pair.amax(1)
    around = position.floor().long()[:, None] + NORMAL_DISC.to(labels.device)  # (P, n, 2)
    label = _label_at(labels, around)
    side = (label == first[:, None]).float() - (label == second[:, None]).float()
    normal = F.normalize((side[..., None] * (around - position[:, None])).sum(1), dim=1)
    return _Outlines(position, normal, first, second)


def _profiles(outlines: _Outlines, labels: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Profile (P, S) and weight (P,) of all points: the contrast of the two sides to their variance.

    The weight is 0 where a side has no contrast, or other labels than its own. `linear`: colours (3, H, W).
    """
    steps = STEPS.to(labels.device)
    points = outlines.position[:, None] + steps[:, None] * outlines.normal[:, None]  # (P, S, 2)
    label = _label_at(labels, points.round().long())
    ahead, behind = steps >= PLATEAU, steps <= -PLATEAU
    clean = (label[:, ahead] == outlines.first[:, None]).all(1)
    clean &= (label[:, behind] == outlines.second[:, None]).all(1)

    size = torch.tensor(labels.shape, device=labels.device)
    grid = ((points + 0.5) * 2 / size - 1).flip(-1)[None]  # x, y in [-1, 1]
    colour = F.grid_sample(linear[None], grid, padding_mode="border", align_corners=False)[0].permute(1, 2, 0)
    of_first, of_second = colour[:, ahead], colour[:, behind]  # (P, n, 3)
    zero = of_second.mean(1, keepdim=True)
    difference = of_first.mean(1, keepdim=True) - zero
    squared = difference.square().sum(-1)  # (P, 1)
    profile = ((colour - zero) * difference).sum(-1) / squared.clamp_min(1e-6)
    variance = sum(part.var(1, correction=0).sum(-1) for part in (of_first, of_second))
    contrast = squared[:, 0] / (variance + NOISE)
    weight = torch.where(clean & (contrast > 1), contrast.clamp_max(LARGEST_CONTRAST), 0.0)
    return profile.clamp(-0.5, 1.5), weight


@cache
def _misfits() -> FloatArray:
    """Matrices (E, S, S), quadratic forms of a profile: the misfit of a step at every edge.

    The fit is linear in level and slope of both sides, so that its misfit is y' (I - X (X'X + R)^-1 X') y.
    """
    distance = STEPS.numpy() - EDGES[:, None]  # (E, S)
    ahead = np.vectorize(math.erf)(distance / BLUR / math.sqrt(2)) / 2 + 0.5
    design = np.stack([1 - ahead, ahead, (1 - ahead) * distance, ahead * distance], 2)  # (E, S, 4)
    transposed = design.swapaxes(1, 2)
    solved = np.linalg.solve(transposed @ design + np.diag([0, 0, RIDGE, RIDGE]), transposed)
    return np.eye(len(STEPS)) - design @ solved


def _estimates(profile: FloatArray) -> tuple[float, float]:
    """Where in a profile (S,) a step between two lines fits best, and where it crosses 1/2 (inf: nowhere)."""
    fitted = EDGES[(_misfits() @ profile @ profile).argmin()]
    below = profile - 0.5
    at = np.flatnonzero((below[:-1] < 0) & (below[1:] >= 0))
    crossings = STEPS.numpy()[at] - below[at] / (below[at + 1] - below[at])
    return float(fitted), float(min(crossings, key=abs, default=math.inf))


def _agreed(estimates: Sequence[float]) -> float:
    """As far as all agree: the smallest of one sign, 0 where they have both signs."""
    return min(estimates, key=abs) if min(estimates) > 0 or max(estimates) < 0 else 0.0


def _label_at(labels: Tensor, pixels: Tensor) -> Tensor:
    """Labels (...) at pixels (..., 2) y, x; -1 outside the image."""
    y, x = pixels.unbind(-1)
    height, width = labels.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return torch.where(inside, labels[y.clamp(0, height - 1), x.clamp(0, width - 1)], -1)
