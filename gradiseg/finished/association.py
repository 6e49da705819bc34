"""Segments of single views joined through a splat: they show one object if the same Gaussians colour them.

In every view a Gaussian votes for the segment of which it colours most, with the sum of alpha T over the
segment's pixels as its weight (`contributions`). It counts as its root, so that a pair of views counts a
Gaussian by the geometric mean of how much of it both see. A vote for every segment that it colours makes
slivers beside an object objects of their own. How votes become objects says `preparation.association`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from gaussian_renderer import contributions
from gradiseg.finished.splat import load_for, small_camera
from preparation.association import cluster
from preparation.id_maps import Segments
from scene.gaussian_model import GaussianModel
from scene.masks import read_id_map, resize_id_map
from scene.views import CameraInfo, SceneInfo
from utils.log import bar

LONGEST_SIDE = 512  # pixels of the views in which Gaussians vote; objects are larger than that tells apart
LEAST = 0.25  # pixels; what colours less of a segment does not vote


def associate(
    ply: str,
    device: str,
    info: SceneInfo,
    views: Sequence[CameraInfo],
    census: Mapping[str, Segments],
) -> np.ndarray:
    """Object (N,) of every segment of the views, numbered from 0, by the splat in the file `ply`.

    `device`: as `--device`.
    Raises: UserError where the file cannot be read, or does not show the photographs.
    """
    model = load_for(ply, device, info, views)
    votes, weights, first = [], [], 0
    for number, view in enumerate(bar(views, "Gaussians vote")):
        segments = census[view.image_name]
        points, nodes, shown = vote(model, view, segments)
        votes.append(np.stack([points, np.full(len(points), number), first + nodes], 1))
        weights.append(np.sqrt(shown))
        first += len(segments.ids)
    return cluster(np.concatenate(votes), first, len(views), np.concatenate(weights))


def vote(
    model: GaussianModel, view: CameraInfo, segments: Segments
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussians (V,) that vote in a view, their segments (V,) in it, and the pixels (V,) that they colour."""
    camera = small_camera(view, LONGEST_SIDE, model.device)
    width, height = camera.image_width, camera.image_height
    ids = torch.from_numpy(resize_id_map(read_id_map(segments.path), width, height).astype(np.int64))
    present = torch.from_numpy(segments.ids.astype(np.int64))
    nothing = torch.zeros(1, height, width)  # for a view without segments
    maps = torch.cat([(ids == present[:, None, None]).float(), nothing])
    most, segment = contributions(camera, model, maps).max(1)  # of (N, K + 1)
    voting = (most > LEAST).nonzero()[:, 0]
    return voting.cpu().numpy(), segment[voting].cpu().numpy(), most[voting].cpu().numpy()
