"""Objects clicked in a few views get masks in all: a network cuts them out, the splat carries them on.

The masks of the clicked views lie on the splat's surface (`gradiseg.finished.carrying`). The view that sees
most of it comes next: where its points lie densest, they prompt the network, and the mask adds points of its
own. A mask that leaves out half of what prompts is refused, and its view gets none at all: nobody knows what
its other pixels are.

Without a network a random walk says which Gaussians they are (`gradiseg.finished.walk`), and masks are where
these show.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arguments import option
from gaussian_renderer import contributions, render, surface
from gradiseg.finished.carrying import SeenSurface, Trail
from gradiseg.finished.splat import load_for, reduced, small_camera
from gradiseg.finished.walk import Click, middle, walk
from pretrained.prompted import NETWORKS, PromptedSegmenter, load_prompted
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.views import CameraInfo, SceneInfo
from utils.errors import UserError, some
from utils.image import image_size, to_uint8
from utils.json_files import read_json
from utils.log import bar, logger

LONGEST_SIDE = 1024  # pixels of the pictures that are segmented: networks see no more
SURFACE_SIDE = 512  # pixels of the views in which depths are compared
SOLID = 0.5  # accumulated alpha of a surface
FEWEST = 5  # points that a view must see to be segmented


@dataclass
class ClickParams:
    """What finds the object that is clicked."""

    clicks_by: str = option("walk", "what finds an object that is clicked", choices=["walk", *NETWORKS])
    click_weights: str = option("", "weights of its network: a local folder or file, or a name on the hub")

    def load(self, device: torch.device) -> PromptedSegmenter | None:
        """The network; None for the random walk.

        Raises: UserError where its weights cannot be read.
        """
        return None if self.clicks_by == "walk" else load_prompted(self.clicks_by, self.click_weights, device)


Clicks = Mapping[str, Mapping[str, np.ndarray]]  # object -> view -> rows (x, y, 1 = it or 0 = not it), (K, 3)


def read_clicks(path: str | Path, views: Sequence[CameraInfo]) -> Clicks:
    """Clicks of a JSON file, `{object: {view: [[x, y], [x, y, 0], ...]}}`, in pixels of the photographs.

    A third number 0 says that the point is not of the object.
    Raises: UserError for what is no such table, a view that is none, or a point outside of its picture.
    """
    by_name = {view.image_name: view for view in views}
    table = read_json(path)
    if not isinstance(table, dict) or not table:
        raise UserError(
            f"{path}: holds no table of clicks. Write {{object: {{view: [[x, y], ...]}}}} into it."
        )
    return {name: _clicks_of(f"{path}: object '{name}'", given, by_name) for name, given in table.items()}


def _clicks_of(where: str, given: Any, by_name: Mapping[str, CameraInfo]) -> dict[str, np.ndarray]:
    """The clicks of one object; `where` begins the messages."""
    if not isinstance(given, dict) or not given:
        raise UserError(f"{where}: names no view. Write {{view: [[x, y], ...]}}.")
    clicks = {}
    for name, rows in given.items():
        if name not in by_name:
            raise UserError(f"{where}: '{name}' is no view of the scene ({some(sorted(by_name))}).")
        try:
            points = np.array([[*row, 1][:3] for row in rows], dtype=float).reshape(-1, 3)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}, view '{name}': write points as [[x, y], [x, y, 0], ...].") from error
        size = image_size(by_name[name].image_path)
        inside = (points[:, :2] >= 0).all(1) & (points[:, :2] < size).all(1)
        if not inside.all() or not (points[:, 2] == 1).any():
            raise UserError(
                f"{where}, view '{name}': needs a point of the object, all within {size[0]}x{size[1]} pixels."
            )
        clicks[name] = points
    return clicks


def cut_out(
    ply: str,
    device: str,
    path: str,
    info: SceneInfo,
    views: Sequence[CameraInfo],
    segmenter: PromptedSegmenter | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """View name -> id map (H, W) uint16 of the objects clicked in the file `path`, and their names.

    Ids are 1, 2, ... in the file's order. Where masks overlap, the smaller one lies on top. `ply`: the splat.
    `device`: as `--device`. `segmenter`: None for the random walk.
    Raises: UserError as `read_clicks`, where the splat does not show the photographs, where nothing is cut
    out of a clicked view, or where no view is left.
    """
    clicks = read_clicks(path, views)
    model = load_for(ply, device, info, views)
    surfaces = [surface_of(model, view) for view in bar(views, "Surfaces")]
    maps: dict[int, np.ndarray] = {}
    areas: dict[int, dict[int, int]] = defaultdict(dict)  # view -> id -> pixels
    refused: set[int] = set()
    for id, (name, by_view) in enumerate(clicks.items(), 1):
        found = follow(name, by_view, surfaces, segmenter) if segmenter else reach(by_view, surfaces, model)
        for number, mask in found:
            if mask is None:
                refused.add(number)
            else:
                lay(maps.setdefault(number, np.zeros(mask.shape, np.uint16)), areas[number], mask, id)
    if refused:
        logger.info("%d views get no mask: one that should show there was refused.", len(refused))
    kept = {views[number].image_name: ids for number, ids in maps.items() if number not in refused}
    if not maps:
        raise UserError(f"{path}: nothing is found where the clicks are. Click elsewhere.")
    if not kept:
        raise UserError(f"{path}: every view with a mask has another that was refused. Click in more views.")
    return kept, list(clicks)


def lay(ids: np.ndarray, areas: dict[int, int], mask: np.ndarray, id: int) -> None:
    """Paint a mask (H, W) into an id map (H, W) whose masks had `areas`, below those that are smaller."""
    larger = [other for other, area in areas.items() if area > mask.sum()]
    ids[mask & np.isin(ids, [0, *larger])] = id
    areas[id] = int(mask.sum())


def follow(
    name: str,
    clicks: Mapping[str, np.ndarray],
    surfaces: Sequence[SeenSurface],
    segmenter: PromptedSegmenter,
) -> Iterator[tuple[int, np.ndarray | None]]:
    """The views in which an object shows, by number, with its mask (H, W); None where that is refused."""
    trail = Trail(surfaces)
    number_of = {surface.camera.image_name: number for number, surface in enumerate(surfaces)}
    waiting = np.ones(len(surfaces), bool)
    with bar(what=name, total=len(surfaces)) as progress:
        for view, rows in clicks.items():
            number = number_of[view]
            points = surfaces[number].shrunk(rows[:, :2])
            mask = segmenter(surfaces[number].picture(), points, rows[:, 2] == 1)
            if not mask.any():
                raise UserError(f"object '{name}': nothing is cut out of view '{view}'. Click elsewhere.")
            trail.add(number, mask)
            waiting[number] = False
            progress.update()
            yield number, mask
        while (seen := np.where(waiting, trail.visible(), 0)).max() >= FEWEST:
            number = int(seen.argmax())
            points = trail.prompts(number)
            mask = segmenter(surfaces[number].picture(), points, np.ones(len(points), bool))
            agrees = trail.agrees(number, mask)
            if agrees:
                trail.add(number, mask)
            waiting[number] = False
            progress.update()
            yield number, mask if agrees else None


def reach(
    clicks: Mapping[str, np.ndarray], surfaces: Sequence[SeenSurface], model: GaussianModel
) -> Iterator[tuple[int, np.ndarray | None]]:
    """The views in which an object shows, by number, with its mask (h, w), by the random walk."""
    cameras = [surface.camera.with_matrices_on(model.device) for surface in surfaces]
    number_of = {camera.image_name: number for number, camera in enumerate(cameras)}
    points = []
    for view, rows in clicks.items():
        number = number_of[view]
        rows = rows[np.argsort(-rows[:, 2], kind="stable")]  # the first one lies on the object
        scale = cameras[number].image_width / surfaces[number].size[0]
        at = np.c_[scale * surfaces[number].shrunk(rows[:, :2]), rows[:, 2]]
        points += [Click(cameras[number], float(x), float(y), is_on == 1) for x, y, is_on in at]
    chosen = walk(model, points, middle(cameras))
    for number, camera in enumerate(cameras):
        mask = shows(model, chosen, camera)
        if mask.any():
            yield number, mask


@torch.no_grad()
def shows(model: GaussianModel, chosen: Tensor, camera: Camera) -> np.ndarray:
    """Where the Gaussians `chosen` (N,) bool show in a view, (H, W) bool."""
    share = render(camera, model, override_identity=chosen[:, None].float())["render_object"][0]
    mask: np.ndarray = (share > SOLID).cpu().numpy()
    return mask


def chosen_by(
    segmenter: PromptedSegmenter, model: GaussianModel, clicks: Sequence[Click], cameras: Sequence[Camera]
) -> Tensor:
    """Which Gaussians (N,) bool are the object of the clicks, by the votes of a network's masks.

    The network cuts it out of pictures of the model where it was clicked, and from there of the photographs
    of `cameras`. A Gaussian is of the object if it shows more within the masks than beside them.
    Raises: UserError where nothing is cut out of a clicked view.
    """
    surfaces, rows = [], {}
    for number, (camera, here) in enumerate(groupby(clicks, lambda click: click.camera)):
        seen = camera.at_resolution(camera.image_width, camera.image_height)
        seen.image_name = f"click {number}"
        with torch.no_grad():
            picture = to_uint8(render(seen, model)["render"])
        surfaces.append(_seen(model, seen, picture))
        rows[seen.image_name] = np.array([[click.x, click.y, click.is_on] for click in here], float)
    pictures = [(camera, camera.image_uint8) for camera in cameras]
    surfaces += [_seen(model, camera, pixels) for camera, pixels in pictures if pixels is not None]
    votes = model.get_xyz.new_zeros(model.num_gaussians, 2)  # within, and of all pixels
    for number, mask in follow("new object", rows, surfaces, segmenter):
        if mask is not None:
            within = torch.from_numpy(surfaces[number].sampled(mask))
            camera = surfaces[number].camera.with_matrices_on(model.device)
            votes += contributions(camera, model, torch.stack([within, torch.ones_like(within)]))
    return 2 * votes[:, 0] > votes[:, 1]


def _seen(model: GaussianModel, camera: Camera, picture: Tensor) -> SeenSurface:
    """A view with its picture (3, H, W) uint8."""
    pixels = picture.permute(1, 2, 0).contiguous().cpu().numpy()
    height, width = pixels.shape[:2]
    small = camera.at_resolution(*reduced((width, height), SURFACE_SIDE))
    return SeenSurface(
        small.with_matrices_on("cpu"), _depth(model, small), pixels, reduced((width, height), LONGEST_SIDE)
    )


def surface_of(model: GaussianModel, view: CameraInfo) -> SeenSurface:
    """What a view shows of a splat."""
    camera = small_camera(view, SURFACE_SIDE, model.device)
    size = reduced(image_size(view.image_path), LONGEST_SIDE)
    return SeenSurface(camera.with_matrices_on("cpu"), _depth(model, camera), view.image_path, size)


@torch.no_grad()
def _depth(model: GaussianModel, camera: Camera) -> np.ndarray:
    """How far away the surface is (h, w); 0 where there is none."""
    alpha, depth, _ = surface(camera, model)
    solid: np.ndarray = torch.where(alpha > SOLID, depth, 0.0).cpu().numpy()
    return solid
