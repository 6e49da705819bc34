"""Objects that were clicked, as masks of every view: cut out where they were clicked, carried by the splat.

1. Where an object is clicked, its outline is cut out of the rendered view (`Cutter`, GrabCut), once within
   each of several distances from the clicked point in space; the outline with the strongest edges under it
   stays, of colour or of depth, if it fills the middle of that distance.
2. From view to view, nearest first: Gaussians that the masks so far cover show where the object is. What they
   cover is the object, what others cover is not, and a rim between the two is cut out of the rendered view
   anew, as is what no view has shown yet, near the object in space.
3. After some views the shares of the Gaussians alone make the masks of all views.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from gaussian_renderer import contributions, draw, surface
from gradiseg.finished.splat import load_fitting_splat, reduced
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.masks import write_id_map
from scene.views import CameraInfo, SceneInfo
from utils.device import select_device
from utils.errors import UserError
from utils.json_files import read_json
from utils.log import bar

KEYS = {"view": str, "x": (int, float), "y": (int, float), "object": str, "positive": bool}
REACHES = (0.045, 0.06, 0.09, 0.13, 0.19, 0.27)  # of the view's width, at the clicked point's depth
FRONT_SHARE, MAYBE_SHARE = 0.3, 0.7  # of a reach: taken for the object; probably the object
FILLED = 0.8  # share of the inner half of a reach that an object fills
JUMP = 0.04  # of a depth between neighbouring pixels: one lies before the other
CARRIED = 24  # views in which outlines are cut out anew
SURE, OWN = 0.85, 0.5  # shares of a pixel: surely of the object, and more of it than not
SEEN = 0.5  # of a pixel by Gaussians that masks have judged
RIM = 0.006  # of the width: how far an outline may lie off
NEAR = 1.25  # radii of what is known of an object, within which the rest of it is looked for
BACK, FRONT, MAYBE_BACK, MAYBE_FRONT = range(4)  # GrabCut's labels

Cutter = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (H,W,3) uint8, labels (H,W) uint8 -> (H,W) bool


@dataclass(frozen=True)
class Click:
    """A point of an object, or with `positive` false of what lies beside it; pixels of the photograph."""

    view: str
    x: float
    y: float
    name: str
    positive: bool = True


@dataclass(frozen=True)
class View:
    """A view as the splat shows it."""

    camera: Camera
    picture: np.ndarray  # (H, W, 3) uint8
    points: np.ndarray  # (H, W, 3) of the surface in the world; far away where there is none


def read_clicks(path: Path, views: Mapping[str, tuple[int, int]]) -> list[Click]:
    """Clicks of a JSON file: a list of {"view", "x", "y", "object"} and, to exclude, "positive": false.

    `views`: width and height of the photographs by name.
    Raises: UserError, which names the file, the click and the key.
    """
    entries = read_json(path, "--clicks takes a list of clicks.")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: must hold a list of clicks, each with view, x, y and object.")
    clicks = [_click(entry, f"{path}: click {index}", views) for index, entry in enumerate(entries)]
    started = {click.name for click in clicks if click.positive}
    never = next((click.name for click in clicks if click.name not in started), None)
    if never is not None:
        raise UserError(f"{path}: no click of {never!r} is positive. One must lie on the object.")
    return clicks


def _click(entry: Any, where: str, views: Mapping[str, tuple[int, int]]) -> Click:
    if not isinstance(entry, dict):
        raise UserError(f"{where} must be an object, not {entry!r:.40}.")
    for key in entry.keys() | KEYS.keys() - {"positive"}:
        if key not in KEYS:
            raise UserError(f"{where}: no key {key!r}. A click has {', '.join(KEYS)}.")
        value = entry.get(key)
        if not isinstance(value, KEYS[key]) or (isinstance(value, bool) and key != "positive") or value == "":
            raise UserError(f"{where}: {key} is {value!r:.40}, not what it must be.")
    if entry["view"] not in views:
        raise UserError(f"{where}: no view is called {entry['view']!r:.60}.")
    width, height = views[entry["view"]]
    if not (0 <= entry["x"] < width and 0 <= entry["y"] < height):
        raise UserError(f"{where}: ({entry['x']}, {entry['y']}) is outside of a picture of {width}x{height}.")
    return Click(entry["view"], entry["x"], entry["y"], entry["object"], entry.get("positive", True))


def grabcut() -> Cutter:
    """OpenCV's GrabCut.

    Raises: UserError where OpenCV is not installed.
    """
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise UserError(f"--clicks needs OpenCV ({error}). pip install -e '.[edit]'") from error

    def cut(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
        labels = labels.copy()
        if not (np.isin(labels, (FRONT, MAYBE_FRONT)).any() and np.isin(labels, (BACK, MAYBE_BACK)).any()):
            return np.isin(labels, (FRONT, MAYBE_FRONT))
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(picture, labels, None, *models, 4, cv2.GC_INIT_WITH_MASK)
        return np.isin(labels, (FRONT, MAYBE_FRONT))

    return cut


def masks_of_clicks(
    model: GaussianModel, cameras: Sequence[Camera], clicks: Sequence[Click], cut: Cutter
) -> dict[str, np.ndarray]:
    """Id map (H,W) int32 of every view by name: the objects are 1, 2, ... in the order of their first clicks.

    `clicks` are in pixels of `cameras`.
    """
    views = [seen(model, camera) for camera in bar(cameras, "Rendering")]
    names = list(dict.fromkeys(click.name for click in clicks))
    shares = torch.stack(
        [
            owned(model, views, [click for click in clicks if click.name == name], cut)
            for name in bar(names, "Carrying objects")
        ],
        1,
    )  # (N, K)
    ids = {}
    for view in views:
        covered = draw(view.camera, model, channels=shares)[1]  # (K, H, W)
        most, which = covered.max(0)
        ids[view.camera.image_name] = torch.where(most > OWN, which + 1, 0).int().cpu().numpy()
    return ids


def seen(model: GaussianModel, camera: Camera) -> View:
    """A view's colours and surface."""
    picture = draw(camera, model)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    alpha, depth = (map_.cpu().numpy() for map_ in surface(camera, model))
    row, column = np.indices(depth.shape) + 0.5
    ray = np.stack([(column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy, np.ones_like(row)], -1)
    points = (ray * depth[..., None] - camera.T) @ camera.R.T
    points[alpha < OWN] = np.inf
    return View(camera, np.ascontiguousarray(picture), points)


def owned(model: GaussianModel, views: Sequence[View], clicks: Sequence[Click], cut: Cutter) -> Tensor:
    """Share (N,) of every Gaussian that is of the clicked object."""
    masks = {name: first_mask(view, clicks, cut) for name, view in _clicked(views, clicks)}
    inside = torch.zeros(model.num_gaussians, device=model.device)
    total = torch.zeros_like(inside)
    by_name = {view.camera.image_name: view for view in views}

    def judge(name: str, mask: np.ndarray) -> None:
        both = torch.from_numpy(np.stack([mask, np.ones_like(mask)])).float()
        shown = contributions(by_name[name].camera, model, both)
        inside.add_(shown[:, 0])
        total.add_(shown[:, 1])

    for name, mask in masks.items():
        judge(name, mask)
    for name in nearest_first(by_name, list(masks)):
        mask = carried_mask(model, by_name[name], inside, total, cut)
        if mask is not None:
            judge(name, mask)
    return inside / total.clamp_min(1e-6)


def write_masks_of_clicks(
    ply: str,
    clicks: str,
    device: str,
    info: SceneInfo,
    views: Sequence[CameraInfo],
    folder: Path,
) -> tuple[dict[str, Path], list[str]]:
    """View name -> id map written to `folder`, and the names of ids 1, 2, ...

    Raises: UserError where the splat or the clicks cannot be read or used.
    """
    cut, on = grabcut(), select_device(device)
    given = read_clicks(Path(clicks), {view.image_name: (view.width, view.height) for view in views})
    model = load_fitting_splat(ply, on, info, views)
    cameras = [reduced(view, on) for view in views]
    scale = {
        view.image_name: camera.image_width / view.width for view, camera in zip(views, cameras, strict=True)
    }
    scaled = [replace(c, x=c.x * scale[c.view], y=c.y * scale[c.view]) for c in given]
    paths = {}
    for name, ids in masks_of_clicks(model, cameras, scaled, cut).items():
        paths[name] = folder / f"{name}.png"
        write_id_map(paths[name], ids)
    return paths, list(dict.fromkeys(click.name for click in given))


def _clicked(views: Sequence[View], clicks: Sequence[Click]) -> list[tuple[str, View]]:
    wanted = {click.view for click in clicks if click.positive}
    return [(view.camera.image_name, view) for view in views if view.camera.image_name in wanted]


def first_mask(view: View, clicks: Sequence[Click], cut: Cutter) -> np.ndarray:
    """The object around the clicks into a view: of several reaches the one with the strongest outline."""
    own = [click for click in clicks if click.view == view.camera.image_name]
    near, depth, fixed = around(view, own)
    edges, jumps = edge_strength(view)
    best, mask = -np.inf, fixed == FRONT
    for reach in REACHES:
        limit = reach * depth * view.camera.image_width / view.camera.fx
        labels = np.select(
            [fixed >= 0, near < FRONT_SHARE * limit, near < MAYBE_SHARE * limit, near < limit],
            [fixed, FRONT, MAYBE_FRONT, MAYBE_BACK],
            BACK,
        )
        found = _cut_near(view, labels.astype(np.uint8), cut)
        found = ndimage.binary_fill_holes(_touching(found, labels == FRONT)) & (fixed != BACK)
        outline = found & ~ndimage.binary_erosion(found, border_value=1)
        ends = (near > 0.93 * limit) & ~jumps  # where the reach ends, not the object
        strength = float((edges * ~ends)[outline].mean()) if outline.any() else 0.0
        middle = near < 0.5 * limit
        if strength > best and (found & middle).sum() >= FILLED * middle.sum():
            best, mask = strength, found
    return mask


def around(view: View, clicks: Sequence[Click]) -> tuple[np.ndarray, float, np.ndarray]:
    """Distance (H, W) in space from positive clicks, their depth, and labels (H, W), -1 off the clicks."""
    height, width = view.picture.shape[:2]
    rows, columns = np.indices((height, width)) + 0.5
    near, fixed, depths = np.full((height, width), np.inf), np.full((height, width), -1), [0.0]
    for click in clicks:
        spot = np.hypot(columns - click.x, rows - click.y) <= max(1.0, RIM * width)
        fixed[spot] = FRONT if click.positive else BACK
        at = view.points[int(click.y), int(click.x)]
        if click.positive and np.isfinite(at).all():
            near = np.minimum(near, np.linalg.norm(view.points - at, axis=-1))
            depths.append(float((at @ view.camera.R + view.camera.T)[2]))
    return near, max(depths), fixed


def _cut_near(view: View, labels: np.ndarray, cut: Cutter) -> np.ndarray:
    """What is cut out of the surroundings of what may be the object: the rest of a view says little of it."""
    found = np.zeros(labels.shape, bool)
    rows, columns = np.nonzero(labels != BACK)
    if not len(rows):
        return found
    margin = 2 + max(np.ptp(rows), np.ptp(columns)) // 4
    box = tuple(slice(max(0, side.min() - margin), side.max() + margin + 1) for side in (rows, columns))
    found[box] = cut(np.ascontiguousarray(view.picture[box]), labels[box])
    return found


def edge_strength(view: View) -> tuple[np.ndarray, np.ndarray]:
    """How much colour or depth changes at a pixel (H, W), 0 to 1, and where depth does (H, W) bool."""
    smooth = ndimage.gaussian_filter(view.picture.astype(float) / 255, (1, 1, 0))
    change = np.sqrt((ndimage.sobel(smooth, 0) ** 2 + ndimage.sobel(smooth, 1) ** 2).sum(-1))
    colour = ndimage.maximum_filter(change / (np.percentile(change, 98) + 1e-6), 3).clip(0, 1)
    depth = (np.nan_to_num(view.points, posinf=1e6) @ view.camera.R + view.camera.T)[..., 2]
    depth = np.log(np.where(np.isfinite(view.points).all(-1), np.maximum(depth, 1e-6), 1e6))
    jumps = ndimage.maximum_filter(depth, 3) - depth > JUMP
    return np.maximum(colour, jumps), jumps


def carried_mask(
    model: GaussianModel, view: View, inside: Tensor, total: Tensor, cut: Cutter
) -> np.ndarray | None:
    """The object in a view, by Gaussians that masks cover; None where they do not show."""
    judged = (total > 1.0).float()
    share = inside / total.clamp_min(1e-6)
    own, known = draw(view.camera, model, channels=torch.stack([share * judged, judged], 1))[1].cpu().numpy()
    if not (own > OWN).any():
        return None
    rim = max(1, round(RIM * view.picture.shape[1]))
    members = model.get_xyz.detach()[(share > OWN) & (judged > 0)].cpu().numpy()
    centre = np.median(members, 0)
    radius = np.percentile(np.linalg.norm(members - centre, axis=1), 98)
    labels = np.where(own > OWN * known, MAYBE_FRONT, MAYBE_BACK)
    labels[ndimage.binary_erosion(own > SURE * np.maximum(known, SEEN), iterations=rim)] = FRONT
    far = ~ndimage.binary_dilation(own > OWN * known, iterations=rim)
    labels[far & (known > SEEN)] = BACK
    labels[np.linalg.norm(view.points - centre, axis=-1) > NEAR * radius] = BACK
    return _touching(_cut_near(view, labels.astype(np.uint8), cut), own > OWN * np.maximum(known, SEEN))


def nearest_first(views: Mapping[str, View], done: Sequence[str]) -> list[str]:
    """Names of `CARRIED` further views spread over all, each the nearest to those before it."""
    names = [name for name in views if name not in done]
    step = max(1.0, len(names) / CARRIED)
    left = [names[int(step * index)] for index in range(min(CARRIED, len(names)))]
    centres = {name: view.camera.camera_center.cpu().numpy() for name, view in views.items()}
    order, reached = [], [centres[name] for name in done]
    while left:
        name = min(left, key=lambda name: min(float(np.linalg.norm(centres[name] - c)) for c in reached))
        left.remove(name)
        order.append(name)
        reached.append(centres[name])
    return order


def _touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The connected parts of a mask that hold a seed."""
    parts, _ = ndimage.label(mask)
    kept: np.ndarray = np.isin(parts, np.setdiff1d(np.unique(parts[seeds & mask]), [0]))
    return kept
