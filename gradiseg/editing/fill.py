"""Filling the hole that an object leaves: what the photographs never saw is continued from what surrounds it.

1. What the object hid: Gaussians that photographs hardly saw, and that the removal lays bare. Nothing is
   known of them (below a table's surface they are a dark blob), so that they go with the object.
2. In every training view the *hole* is where the object showed and now hardly anything does. Its colours are
   inpainted from the rest of the picture, its depths by the smoothest continuation of inverse depth, which is
   exact for planes; both from what is drawn, since the background's colour says nothing of a surface.
3. New Gaussians start at the inpainted depths of all views, one for each voxel of a pixel's size, but for
   those that would hide what another view shows outside of its hole. They are trained on the inpainted views;
   nothing else changes. They belong to the ids that surround the hole.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_fill_holes, distance_transform_edt
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree
from torch import Tensor

from gaussian_renderer import contributions, render, surface
from gradiseg.editing.baking import Told, bake, coverage, part, picture
from gradiseg.editing.identity import usual_encoding
from gradiseg.editing.inpainting import Inpainter, clone
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera
from utils.general import inverse_sigmoid
from utils.log import logger
from utils.sh import RGB2SH

SHOWN = 0.05  # accumulated alpha above which an object shows in a pixel
OPEN = 0.5  # share of a pixel that photographs know, below which it is open
TRUSTED = 0.25  # Gaussians of which they saw a smaller share than is laid bare go with the object
MARGIN = 0.01  # of the image's diagonal: by so much the hole is dilated, since its rim is part object
CLEAR = 0.01  # share of a depth by which a point must be nearer than a surface to stand in front of it
NOTHING = 1e-3  # pixels of all views together: a Gaussian that shows less was not laid bare
SMALLEST = 12  # pixels: smaller holes are cracks between Gaussians
FARTHEST = 1e-6  # inverse depth: below it nothing around a hole says how deep it is
START_OPACITY = 0.6
NEIGHBOURS = 16  # Gaussians around a new one that say whose it is
RATES = {"f_dc": 0.01, "opacity": 0.05, "scaling": 0.01}


@dataclass(frozen=True)
class Hole:
    """A view with a hole: where, the filled picture (3, H, W) uint8, depths (H, W)."""

    camera: Camera
    region: Tensor
    picture: Tensor
    depth: Tensor


@torch.no_grad()
def trust(
    before: LabelledModel, removed: Tensor, cameras: Sequence[Camera], told: Told = lambda share: None
) -> Tensor:
    """How well photographs know what shows now: (N,) in [0, 1], 0 for the Gaussians `removed` (N,).

    It is what a Gaussian added to the training views before the removal, over what it adds after it; 1 where
    that is next to nothing, as of what lies beside every view.
    """
    seen = torch.zeros(before.count, device=removed.device)
    shown = torch.zeros_like(seen)
    model, rest = before.model(), before.rows(~removed).model()
    for number, camera in enumerate(cameras, 1):
        everywhere = torch.ones(1, camera.image_height, camera.image_width, device=removed.device)
        seen += contributions(camera, model, everywhere)[:, 0]
        shown[~removed] += contributions(camera, rest, everywhere)[:, 0]
        told(number / len(cameras))
    share = torch.where(shown < NOTHING, 1.0, (seen / shown).clamp_max(1.0))
    return torch.where(removed, 0.0, share)


@torch.no_grad()
def find_holes(
    before: LabelledModel,
    after: LabelledModel,
    removed: Tensor,
    known: Tensor,
    cameras: Sequence[Camera],
    inpaint: Inpainter,
    told: Told = lambda share: None,
) -> list[Hole]:
    """The holes of the views that have one; `removed` (N,) went from `before`, `known` (M,) is the rest's
    trust.
    """
    rest = after.model()
    holes, unknown, hidden = [], 0, 0
    for number, camera in enumerate(cameras):
        told(number / len(cameras))
        covered = coverage(before, removed, camera)
        alpha, depth, _ = surface(camera, rest)
        trusted = render(camera, rest, override_color=known[:, None].expand(-1, 3).contiguous())["render"][0]
        open_pixels = ((covered > SHOWN) & (trusted < OPEN)).cpu().numpy()
        unknown, hidden = unknown + int(open_pixels.sum()), hidden + int((covered > SHOWN).sum())
        if open_pixels.sum() < SMALLEST:
            continue
        margin = max(1, round(MARGIN * math.hypot(*open_pixels.shape)))
        region = binary_fill_holes(binary_dilation(open_pixels, np.ones((3, 3), bool), margin))
        rim = binary_dilation(region, np.ones((3, 3), bool), margin)  # still half the object's
        nearest = tuple(distance_transform_edt(rim, return_distances=False, return_indices=True))
        drawn = alpha.cpu().numpy() > OPEN
        region &= drawn[nearest]  # beside nothing, nothing is missing
        nearness = continued(np.where(drawn, 1 / depth.clamp_min(1e-3).cpu().double(), np.nan), region)
        region &= nearness > FARTHEST
        if region.sum() < SMALLEST:
            continue
        shown = picture(after, camera).permute(1, 2, 0).cpu().numpy()
        nearest_drawn = clone(shown, region | ~drawn)
        continuation = inpaint(np.where((region | drawn)[..., None], shown, nearest_drawn), region)
        holes.append(
            Hole(
                camera,
                torch.from_numpy(region),
                torch.from_numpy(continuation).permute(2, 0, 1).contiguous(),
                torch.from_numpy(1 / np.maximum(nearness, FARTHEST)),
            )
        )
    share = unknown / max(1, hidden)
    logger.info(
        "fill: photographs know %.1f%% of what it hid; %d views have a hole.", 100 - 100 * share, len(holes)
    )
    return holes


def continued(values: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Values (H, W) with those of a region (H, W) bool replaced by the harmonic function that continues the
    others; where these are NaN nothing is known, as beyond the picture. 0 where nothing around is known.
    """
    if not region.any():
        return values
    number = np.full(region.shape, -1)
    rows, columns = np.nonzero(region)
    number[rows, columns] = np.arange(len(rows))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    known, degree = np.zeros(len(rows)), np.zeros(len(rows))
    for step_row, step_column in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        there = (rows + step_row, columns + step_column)
        inside = (
            (there[0] >= 0) & (there[0] < region.shape[0]) & (there[1] >= 0) & (there[1] < region.shape[1])
        )
        inside[inside] &= (region | ~np.isnan(values))[there[0][inside], there[1][inside]]
        here = np.nonzero(inside)[0]
        other = (there[0][here], there[1][here])
        degree[here] += 1
        within = number[other] >= 0
        entries.append((here[within], number[other][within], -np.ones(int(within.sum()))))
        np.add.at(known, here[~within], values[other][~within])
    entries.append((np.arange(len(rows)), np.arange(len(rows)), degree + 1e-9))
    row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    system = coo_matrix((value, (row, column)), shape=(len(rows), len(rows))).tocsc()
    result = values.copy()
    result[rows, columns] = spsolve(system, known)
    return result


def seeds(holes: Sequence[Hole], model: LabelledModel) -> tuple[dict[str, Tensor], Tensor]:
    """New Gaussians (as in `GaussianModel.params`) at the holes' depths, one for each voxel, and their ids
    (M,).
    """
    points, colours, sizes = (torch.cat(part) for part in zip(*map(_back_projected, holes), strict=True))
    voxel = float(sizes.median())
    _, cell, count = torch.unique(
        (points / voxel).floor().long(), dim=0, return_inverse=True, return_counts=True
    )
    total = len(count)

    def mean(values: Tensor) -> Tensor:
        return (
            torch.zeros(total, values.shape[1], dtype=values.dtype).index_add_(0, cell, values)
            / count[:, None]
        )

    colour = mean(colours).float()
    rest = model.params["f_rest"].shape[1]
    params = {
        "xyz": mean(points).float(),
        "f_dc": RGB2SH(colour)[:, None],
        "f_rest": torch.zeros(total, rest, 3),
        "opacity": inverse_sigmoid(torch.full((total, 1), START_OPACITY)),
        "scaling": torch.full((total, 3), math.log(0.7 * voxel)),
        "rotation": torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(total, 1),
        "obj_dc": torch.zeros(total, 1, model.params["obj_dc"].shape[2]),
    }
    own = ids_around(params["xyz"], model)
    for id in own.unique().tolist():
        code = usual_encoding(model, id)
        if code is not None:
            params["obj_dc"][own == id] = code.float().cpu()
    return params, own


def ids_around(points: Tensor, model: LabelledModel) -> Tensor:
    """The id (M,) that most of the Gaussians nearest to each point (M, 3) have."""
    ranks = np.arange(1, min(NEIGHBOURS, model.count) + 1)  # a list of them: two axes for one neighbour, too
    _, rows = cKDTree(model.params["xyz"].cpu().numpy()).query(points.numpy(), ranks)
    return model.ids.cpu()[torch.from_numpy(rows)].mode(1).values


def _back_projected(hole: Hole) -> tuple[Tensor, Tensor, Tensor]:
    """Points (P, 3), colours (P, 3) in [0, 1] and a pixel's size there (P,) of a hole's pixels."""
    camera = hole.camera
    row, column = torch.nonzero(hole.region, as_tuple=True)
    depth = hole.depth[row, column]
    points = camera.unproject(column + 0.5, row + 0.5, depth)
    colours = hole.picture[:, row, column].T.double() / 255
    return points, colours, depth / camera.fx


@torch.no_grad()
def in_the_way(
    points: Tensor,
    model: LabelledModel,
    holes: Sequence[Hole],
    cameras: Sequence[Camera],
    told: Told = lambda share: None,
) -> Tensor:
    """Which points (M, 3) stand in front of what a view shows outside of its hole: (M,) bool.

    Depths continued in one view are wrong where what stands behind begins unseen. Another view tells.
    """
    regions = {hole.camera.image_name: hole.region for hole in holes}
    hides = torch.zeros(len(points), dtype=torch.bool)
    for number, camera in enumerate(cameras, 1):
        alpha, depth = (drawn.cpu() for drawn in surface(camera, model.model())[:2])
        region = regions.get(camera.image_name, torch.zeros_like(alpha, dtype=torch.bool))
        shows = (alpha > OPEN) & ~region  # (H, W)
        x, y, z, inside = camera.project(points.double())
        which = inside.nonzero().flatten()
        pixel = y[which].long(), x[which].long()
        hides[which] |= shows[pixel] & (z[which] < (1 - CLEAR) * depth[pixel])
        told(number / len(cameras))
    return hides


def filled(
    before: LabelledModel,
    removed: Tensor,
    cameras: Sequence[Camera],
    inpaint: Inpainter,
    rounds: int,
    told: Told,
) -> LabelledModel:
    """The model without the Gaussians `removed` (N,), the hole that they leave filled.

    In `rounds` of training; 0 leaves the new Gaussians as they start.
    """
    known = trust(before, removed, cameras, part(told, 0.0, 0.2))
    gone = known < TRUSTED
    after = before.rows(~gone)
    holes = find_holes(before, after, gone, known[~gone], cameras, inpaint, part(told, 0.2, 0.45))
    if not holes:
        logger.info("fill: there is no hole: nothing is filled.")
        return after
    params, ids = seeds(holes, after)
    clear = ~in_the_way(params["xyz"], after, holes, cameras, part(told, 0.45, 0.5))
    start = after.followed_by({name: tensor[clear] for name, tensor in params.items()}, ids[clear])
    if not rounds or not bool(clear.any()):
        told(1.0)
        return start
    new = torch.arange(start.count, device=start.ids.device) >= after.count
    targets = []
    for hole in holes:
        shown = picture(after, hole.camera)
        region = hole.region.to(shown.device)
        targets.append((hole.camera, torch.where(region, hole.picture.to(shown.device), shown)))
    return bake(start, new, RATES, targets, rounds, part(told, 0.5, 1.0))
