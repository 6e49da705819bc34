"""The object that was clicked, by colour and shape alone: a random walk over a splat's Gaussians.

No network says here what an object is. The Gaussians in the first clicked picture are a graph, each with
edges to its nearest ones. An edge is weak where colours differ, where neighbours lie far apart, and where the
surface between them is concave, as it is where one thing stands on another. A click is the Gaussians that
colour its pixel; what lies along the border of the picture is no object. A Gaussian is of the object if a
walker that starts there comes to a click on it first, more often than not (Grady 2006).

Clicks correct what the ones before them found: from the second one on, the last result pulls weakly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import cg
from scipy.spatial import cKDTree
from torch import Tensor

from gaussian_renderer import contributions
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from utils.graphics import build_rotation
from utils.sh import SH2RGB

NEIGHBOURS = 12
LOCAL = 4  # of these, whose distance says how densely Gaussians lie
FAINT = 0.05  # opacity; what has less is no node, and follows the nearest one
BORDER = 0.06  # of the first picture's width and height
SEEDS = 6  # Gaussians of a click
LEAST_SEED = 0.05  # that each adds to the pixel, of what the first one adds
BRIGHTNESS = 0.3  # of a difference between colours: light and shade lie on one object
COLOUR, GAP, CONCAVE = 100.0, 0.5, 2.0  # how differences weaken an edge
WEAKEST = 1e-6
PULL = 0.003  # of a node's edges, to the last result

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Click:
    """A pixel (x, y) of a view, on the object or beside it."""

    camera: Camera
    x: float
    y: float
    is_on: bool = True


@torch.no_grad()
def walk(model: GaussianModel, clicks: Sequence[Click], above: Floats) -> Tensor:
    """Which Gaussians (N,) bool are the object of the clicks, in their order; the first one lies on it.

    `above`: a point (3,) from which surfaces are seen from outside, such as the `middle` of the cameras. The
    first view must show the whole object. None are chosen where nothing shows at the first click.
    """
    x, y, _, inside = (part.cpu().numpy() for part in clicks[0].camera.project(model.get_xyz))
    solid = model.get_opacity[:, 0].cpu().numpy() > FAINT
    nodes, within = np.flatnonzero(inside & solid), np.flatnonzero(inside)
    chosen = np.zeros(len(nodes), bool)
    found = torch.zeros(model.num_gaussians, dtype=torch.bool)
    if len(nodes) <= NEIGHBOURS:
        return found.to(model.device)
    points = model.get_xyz.cpu().double().numpy()
    tree = cKDTree(points[nodes])
    weights = edges(model, nodes, tree, above)
    known = np.where(near_border(clicks[0].camera, x[nodes], y[nodes]), 0.0, np.nan)
    for number, click in enumerate(clicks):
        known[np.isin(nodes, seeds(model, click))] = float(click.is_on)
        chosen = solve(weights, known, chosen if number else None)
    found[within] = torch.from_numpy(chosen[tree.query(points[within])[1]])
    return found.to(model.device)


def middle(cameras: Sequence[Camera]) -> Floats:
    """Of the places where cameras stand, (3,): from there they see surfaces from outside."""
    place: Floats = np.mean([-camera.R @ camera.T for camera in cameras], 0)
    return place


def near_border(camera: Camera, x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which points (M,) of a picture lie along its border."""
    across, down = x / camera.image_width, y / camera.image_height
    near: NDArray[np.bool_] = np.minimum(np.minimum(across, 1 - across), np.minimum(down, 1 - down)) < BORDER
    return near


def seeds(model: GaussianModel, click: Click) -> NDArray[np.int64]:
    """The Gaussians that colour a pixel most."""
    pixel = torch.zeros(1, click.camera.image_height, click.camera.image_width)
    pixel[0, int(click.y), int(click.x)] = 1.0
    added = contributions(click.camera, model, pixel)[:, 0].cpu().numpy()
    most = np.argsort(-added, kind="stable")[:SEEDS]
    return most[added[most] > LEAST_SEED * added[most[0]]]


def edges(model: GaussianModel, nodes: NDArray[np.int64], tree: cKDTree, above: Floats) -> csr_matrix:
    """Weights (M, M) of the edges between the Gaussians of rows `nodes` (M,), which `tree` holds."""
    points = np.asarray(tree.data)
    distance, nearest = tree.query(points, NEIGHBOURS + 1)
    one, other = np.repeat(np.arange(len(nodes)), NEIGHBOURS), nearest[:, 1:].ravel()
    density = distance[:, 1 : LOCAL + 1].mean(1).clip(1e-9)
    gap = distance[:, 1:].ravel() / np.maximum(density[one], density[other])
    colors = opponent(SH2RGB(model.params["f_dc"][:, 0].cpu().double().numpy()[nodes].clip(-2, 2)))
    differ = ((colors[one] - colors[other]) ** 2).sum(1)
    out = normals(model, nodes, above)
    way = (points[other] - points[one]) / distance[:, 1:].reshape(-1, 1).clip(1e-9)
    rise = ((way * out[one]).sum(1) - (way * out[other]).sum(1)).clip(0)
    concave = rise * (1 - (out[one] * out[other]).sum(1)) / 2
    weight = np.exp(-COLOUR * differ - GAP * gap**2 - CONCAVE * concave) + WEAKEST
    matrix = coo_matrix((weight, (one, other)), (len(nodes), len(nodes))).tocsr()
    return matrix.maximum(matrix.T).tocsr()


def opponent(colors: Floats) -> Floats:
    """Brightness, weighed down, red against green and yellow against blue (M, 3) of colours (M, 3)."""
    red, green, blue = colors.clip(0, 1).T
    brightness = np.sqrt(BRIGHTNESS) * (0.3 * red + 0.6 * green + 0.1 * blue)
    return np.stack([brightness, red - green, (red + green) / 2 - blue], 1)


def normals(model: GaussianModel, nodes: NDArray[np.int64], above: Floats) -> Floats:
    """The shortest axes (M, 3) of Gaussians, on the side of the point `above` (3,)."""
    axes = build_rotation(model.get_rotation).cpu().double().numpy()[nodes]  # (M, 3, 3)
    shortest = model.get_scaling.cpu().numpy()[nodes].argmin(1)
    out: Floats = np.take_along_axis(axes, shortest[:, None, None].repeat(3, 1), 2)[:, :, 0]
    towards = ((above - model.get_xyz.cpu().double().numpy()[nodes]) * out).sum(1)
    return np.where(towards < 0, -1.0, 1.0)[:, None] * out


def solve(weights: csr_matrix, known: Floats, last: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Which nodes (M,) a walker leaves to a click on the object more often than to one beside it.

    known: (M,), 1 on the object, 0 beside it, NaN where that is asked. last: (M,), the result that pulls.
    """
    free, fixed = np.flatnonzero(np.isnan(known)), np.flatnonzero(~np.isnan(known))
    degree = np.asarray(weights.sum(1)).ravel()
    pull = PULL * degree[free] if last is not None else np.zeros(len(free))
    diagonal = degree[free] + pull
    system = diags(diagonal) - weights[free][:, free]
    given = weights[free][:, fixed] @ known[fixed] + (pull * last[free] if last is not None else 0.0)
    share, _ = cg(system, given, rtol=1e-4, maxiter=400, M=diags(1 / diagonal))
    result: NDArray[np.bool_] = known == 1
    result[free] = share > 0.5
    return result
