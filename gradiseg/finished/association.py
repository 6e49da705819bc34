"""Segments of single views joined through a splat: they show one object if the same Gaussians colour them.

A vote is a Gaussian in a view, for the segment that it colours, with the sum of alpha T over the segment's
pixels as its weight (`contributions`). It counts as its root, so that a pair of views counts a Gaussian by
the geometric mean of how much of it both see. How votes become objects says `preparation.association`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from arguments import ModelParams
from gaussian_renderer import contributions
from gradiseg.finished.splat import check_fit, load_splat, spread_over
from preparation.association import cluster
from preparation.id_maps import Segments
from scene.cameras import Camera, load_camera
from scene.gaussian_model import GaussianModel
from scene.masks import read_id_map, resize_id_map
from scene.views import CameraInfo, SceneInfo
from utils.device import select_device
from utils.log import bar

LONGEST_SIDE = 512  # pixels of the views in which Gaussians vote; objects are larger than that tells apart
LEAST = 0.25  # pixels; what colours less of a segment is none of it


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
    on = select_device(device)
    model = load_splat(ply, on, info.origin)
    background = torch.zeros(3, device=on)
    some = [load_camera(view, 0, ModelParams()).with_matrices_on(on) for view in spread_over(views)]
    check_fit(model, some, background, info.point_cloud.points, path=ply)
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
    """Gaussians (K,), segments (K,) of a view and the pixels (K,) of the one that the other colours."""
    step = min(1.0, LONGEST_SIDE / max(view.width, view.height))
    width, height = max(1, round(step * view.width)), max(1, round(step * view.height))
    x, y = width / view.width, height / view.height
    lens = (view.fx * x, view.fy * y, view.cx * x, view.cy * y)
    camera = Camera(0, view.image_name, width, height, *lens, view.R, view.T).with_matrices_on(model.device)
    ids = torch.from_numpy(resize_id_map(read_id_map(segments.path), width, height).astype(np.int64))
    present = torch.from_numpy(segments.ids.astype(np.int64))
    shown = contributions(camera, model, (ids == present[:, None, None]).float())  # (N, K)
    gaussian, segment = (shown > LEAST).nonzero(as_tuple=True)
    return gaussian.cpu().numpy(), segment.cpu().numpy(), shown[gaussian, segment].cpu().numpy()
