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
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gaussian_renderer import render, surface
from gradiseg.finished.carrying import SeenSurface, Trail
from gradiseg.finished.splat import load_for, reduced, small_camera
from gradiseg.finished.walk import Click, walk
from pretrained.prompted import PromptedSegmenter
from scene.gaussian_model import GaussianModel
from scene.views import CameraInfo, SceneInfo
from utils.errors import UserError, some
from utils.image import image_size
from utils.json_files import read_json
from utils.log import bar, logger

LONGEST_SIDE = 1024  # pixels of the pictures that are segmented: networks see no more
SURFACE_SIDE = 512  # pixels of the views in which depths are compared
SOLID = 0.5  # accumulated alpha of a surface
FEWEST = 5  # points that a view must see to be segmented

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
        scale = cameras[number].image_width / image_size(surfaces[number].path)[0]
        rows = rows[np.argsort(-rows[:, 2], kind="stable")]  # the first one lies on the object
        points += [Click(cameras[number], scale * x, scale * y, is_on == 1) for x, y, is_on in rows]
    chosen = walk(model, points, np.mean([-camera.R @ camera.T for camera in cameras], 0))
    for number, camera in enumerate(cameras):
        with torch.no_grad():
            share = render(camera, model, override_identity=chosen[:, None].float())["render_object"][0]
        mask = (share > SOLID).cpu().numpy()
        if mask.any():
            yield number, mask


@torch.no_grad()
def surface_of(model: GaussianModel, view: CameraInfo) -> SeenSurface:
    """What a view shows of a splat."""
    camera = small_camera(view, SURFACE_SIDE, model.device)
    alpha, depth, _ = surface(camera, model)
    solid = torch.where(alpha > SOLID, depth, 0.0).cpu().numpy()
    size = reduced(image_size(view.image_path), LONGEST_SIDE)
    return SeenSurface(camera.with_matrices_on("cpu"), solid, view.image_path, size)
