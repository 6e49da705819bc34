"""A selection as data: what a recipe or a flag says, and the Gaussians that it means.

- `4`, `"red mug"`, `{"id": 4}`: of an id, or of an id by its name
- `[4, "red mug"]`, `{"union": [...]}`: of any of them; `{"intersection": [...]}`,
  `{"difference": [from, what, ...]}`, `{"not": ...}`, `{"all": true}`
- `{"words": "red mug"}`: of the ids that words find in the first test view, where the command can look
- `{"click": [x, y], "view": name}`: of the id that shows at a pixel of a view
- `{"clicked": [{"points": [[x, y], [x, y, 0], ...], "view": name}, ...]}`: the object on which points lie,
  whatever ids say; a third number 0: beside it. By colour and shape (`gradiseg.finished.walk`), so that the
  first view must show the whole of it; with `"by": "network"` by one that cuts out what is clicked
  (`gradiseg.finished.clicks`), where the command has one
- `{"box": [left, top, right, bottom], "view": name}`, `{"lasso": [[x, y], ...], "view": name}`: that show in
  a region of a view; with `"through": true` whatever lies behind it, too
- with these, `"camera": {...}` in the place of `"view"`: a view that is none of the scene's, see `free_view`;
  `"hidden": [ids]`: as if these objects were not there
- `{"grow": radius, "of": ...}`, `{"shrink": radius, "of": ...}`: with, or away from, neighbours within a
  radius in scene units
- `{"inside": ...}`: of these, the Gaussians with their centre where the scene's views show their object, see
  `occupancy`: cut out, it is cleaner
- `{"hull": "spare", "of": ...}`: and what lies in its convex hull; `"spare"` leaves other objects alone,
  `"all"` does not

An expression names no rows, so that it means the same object in another iteration of a run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from gradiseg.finished.clicks import chosen_by
from gradiseg.finished.walk import Click, middle, walk
from gradiseg.labelled import LabelledModel
from gradiseg.occupancy import centres_inside
from gradiseg.selection import free_view, in_view, neighbours
from gradiseg.selection.hull import inside_hull
from gradiseg.votes import voters
from pretrained.prompted import PromptedSegmenter
from scene.cameras import Camera
from utils.errors import UserError

Expression = int | str | Sequence[Any] | Mapping[str, Any]
LARGEST = float(torch.finfo(torch.float32).max)  # of numbers; neither Infinity nor NaN is below it
FORMS = 'an id, a name, a list of them, or an object such as {"click": [x, y], "view": name}'


@dataclass(frozen=True)
class Chooser:
    """Evaluates expressions for one model and the views of its scene; `where` begins every message."""

    model: LabelledModel
    views: Mapping[str, Camera]
    where: str = "select"
    find: Callable[[str], Sequence[int]] | None = None  # ids of an object given in words
    segmenter: PromptedSegmenter | None = None

    def __call__(self, expression: Expression) -> Tensor:
        """The selection (N,) bool.

        Raises:
            UserError: an expression of another form, an id, name or view that there is not, a pixel outside.
        """
        if isinstance(expression, bool) or expression is None:
            raise UserError(f"{self.where}: {expression!r} selects nothing. Write {FORMS}.")
        if isinstance(expression, int):
            return self._of_id(expression)
        if isinstance(expression, str):
            return self._of_id(self.id_of(expression))
        if isinstance(expression, Mapping):
            return self._of_object(expression)
        return self._joined(expression, torch.logical_or)

    def id_of(self, name: str) -> int:
        """The id of a name, or of a number written as text."""
        if name.isdecimal():
            return int(name)
        found = [number for number, called in self.model.names.items() if called == name]
        if not found:
            known = ", ".join(sorted(self.model.names.values())) or "none; rename gives one"
            raise UserError(f"{self.where}: no object is called {name!r}. Names: {known}.")
        return found[0]

    def _of_id(self, id: int) -> Tensor:
        chosen = self.model.ids == id
        if not bool(chosen.any()):
            listed = ", ".join(f"{self.model.describe(i)} ({n:,})" for i, n in self.model.counts().items())
            raise UserError(f"{self.where}: no Gaussian has the id {id}. Ids (Gaussians): {listed}.")
        return chosen

    def _joined(self, parts: Any, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise UserError(f"{self.where}: {parts!r} must be a list of selections, with one at least.")
        return reduce(join, [self(part) for part in parts])

    def _of_object(self, expression: Mapping[str, Any]) -> Tensor:
        readers: dict[str, tuple[set[str], Callable[[Mapping[str, Any]], Tensor]]] = {
            "id": (set(), lambda e: self._of_id(_number(e["id"], f"{self.where}: id", int))),
            "name": (set(), lambda e: self._of_id(self.id_of(str(e["name"])))),
            "words": (set(), self._words),
            "all": (set(), self._all),
            "union": (set(), lambda e: self._joined(e["union"], torch.logical_or)),
            "intersection": (set(), lambda e: self._joined(e["intersection"], torch.logical_and)),
            "difference": (set(), lambda e: self._joined(e["difference"], lambda a, b: a & ~b)),
            "not": (set(), lambda e: ~self(e["not"])),
            "click": ({"view", "camera", "hidden"}, self._click),
            "clicked": ({"by", "hidden"}, self._clicked),
            "box": ({"view", "camera", "hidden", "through"}, self._region),
            "lasso": ({"view", "camera", "hidden", "through"}, self._region),
            "grow": ({"of"}, self._neighbours),
            "shrink": ({"of"}, self._neighbours),
            "inside": (set(), self._inside),
            "hull": ({"of"}, self._hull),
        }
        kinds = [key for key in expression if key in readers]
        if len(kinds) != 1:
            raise UserError(f"{self.where}: {dict(expression)!r} must have one of {', '.join(readers)}.")
        allowed, read = readers[kinds[0]]
        unknown = set(expression) - allowed - {kinds[0]}
        if unknown:
            raise UserError(
                f"{self.where}: {kinds[0]} has no {sorted(unknown)[0]!r}. It takes {sorted(allowed)}."
            )
        return read(expression)

    def _view(self, expression: Mapping[str, Any]) -> Camera:
        if "camera" in expression:
            if "view" in expression:
                raise UserError(f"{self.where}: view and camera exclude each other. Leave one out.")
            camera = free_view.camera_of(expression["camera"], self.where, self.model.origin)
            return camera.with_matrices_on(self.model.ids.device)
        name = expression.get("view")
        if not isinstance(name, str) or name not in self.views:
            some = ", ".join(list(self.views)[:5])
            raise UserError(f"{self.where}: view {name!r} is none of the scene's ({some}, ...).")
        return self.views[name]

    def _all(self, expression: Mapping[str, Any]) -> Tensor:
        if expression["all"] is not True:
            raise UserError(f"{self.where}: all must be true, not {expression['all']!r}.")
        return torch.ones_like(self.model.ids, dtype=torch.bool)

    def _words(self, expression: Mapping[str, Any]) -> Tensor:
        words = expression["words"]
        if self.find is None or not isinstance(words, str):
            raise UserError(f"{self.where}: words {words!r} cannot be looked for here. Give an id or a name.")
        ids = self.find(words)
        if not ids:
            raise UserError(f"{self.where}: nothing in the picture is {words!r}. Give an id or other words.")
        return self._joined(list(ids), torch.logical_or)

    def _click(self, expression: Mapping[str, Any]) -> Tensor:
        camera = self._view(expression)
        (point,) = _points([expression["click"]], f"{self.where}: click")
        try:
            id = in_view.id_at(self.model.rows(self._visible(expression)), camera, *point)
        except ValueError as error:
            raise UserError(f"{self.where}: click {error}.") from error
        return self._of_id(id)

    def _clicked(self, expression: Mapping[str, Any]) -> Tensor:
        where = f"{self.where}: clicked"
        entries = expression["clicked"]
        if not isinstance(entries, list) or not entries or not all(isinstance(e, Mapping) for e in entries):
            raise UserError(f'{where} must be a list of {{"points": [[x, y], ...], "view": name}}.')
        clicks = [click for entry in entries for click in self._clicks(entry, where)]
        if not clicks[0].is_on:
            raise UserError(f"{where}: the first point must lie on the object.")
        if not self.views:
            raise UserError(f"{where} needs the scene's views, and there are none.")
        visible = self._visible(expression)
        chosen, model = visible.clone(), self.model.rows(visible).model()
        if expression.get("by", "walk") == "walk":
            chosen[visible] = walk(model, clicks, middle(list(self.views.values())))
        elif expression["by"] == "network" and self.segmenter is not None:
            chosen[visible] = chosen_by(self.segmenter, model, clicks, voters(list(self.views.values())))
        else:
            raise UserError(f"{where}: by {expression['by']!r} is not possible here. Give --clicks_by.")
        return chosen

    def _clicks(self, entry: Mapping[str, Any], where: str) -> list[Click]:
        camera = self._view(entry)
        clicks = [Click(camera, *point) for point in _signed_points(entry.get("points"), where)]
        for click in clicks:
            if not (0 <= click.x < camera.image_width and 0 <= click.y < camera.image_height):
                size = f"{camera.image_width}x{camera.image_height}"
                raise UserError(f"{where}: ({click.x:g}, {click.y:g}) is outside of a picture of {size}.")
        return clicks

    def _region(self, expression: Mapping[str, Any]) -> Tensor:
        camera = self._view(expression)
        if "box" in expression:
            edges = expression["box"]
            if not isinstance(edges, Sequence) or len(edges) != 4:
                raise UserError(f"{self.where}: box must be [left, top, right, bottom], not {edges!r}.")
            left, top, right, bottom = (_number(edge, f"{self.where}: box") for edge in edges)
            corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        else:
            corners = _points(expression["lasso"], f"{self.where}: lasso")
            if len(corners) < 3:
                raise UserError(f"{self.where}: lasso needs three corners at least.")
        region = in_view.polygon(camera, corners)
        visible = self._visible(expression)
        shown = self.model.rows(visible)
        chosen = visible.clone()
        chosen[visible] = in_view.shown_in(shown, camera, region)
        if expression.get("through"):
            chosen[visible] |= in_view.behind(shown, camera, region)
        return chosen

    def _visible(self, expression: Mapping[str, Any]) -> Tensor:
        """The Gaussians (N,) bool that `hidden` leaves."""
        ids = expression.get("hidden", [])
        if not isinstance(ids, list) or not all(type(id) is int for id in ids):
            raise UserError(f"{self.where}: hidden must be a list of ids, not {ids!r}.")
        return ~torch.isin(self.model.ids, self.model.ids.new_tensor(ids))

    def _neighbours(self, expression: Mapping[str, Any]) -> Tensor:
        change = neighbours.grow if "grow" in expression else neighbours.shrink
        key = "grow" if "grow" in expression else "shrink"
        radius = _number(expression[key], f"{self.where}: {key}")
        return change(self.model.params["xyz"], self(expression.get("of")), float(radius))  # type: ignore[arg-type]

    def _inside(self, expression: Mapping[str, Any]) -> Tensor:
        chosen = self(expression["inside"])
        if not self.views:
            raise UserError(f"{self.where}: inside needs the scene's views, and there are none.")
        return chosen & centres_inside(self.model.model(), list(self.views.values()), self.model.ids)

    def _hull(self, expression: Mapping[str, Any]) -> Tensor:
        rule = expression["hull"]
        if rule not in ("spare", "all"):
            raise UserError(f'{self.where}: hull must be "spare" or "all", not {rule!r}.')
        chosen = self(expression.get("of"))  # type: ignore[arg-type]
        inside = inside_hull(self.model.params["xyz"], chosen)
        if inside is None:  # flat: there is nothing inside
            return chosen
        return chosen | (inside if rule == "all" else inside & (self.model.ids == 0))


def _number(value: Any, where: str, kind: type = float) -> Any:
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LARGEST:
        raise UserError(f"{where} must be a number, not {value!r}.")
    return value


def _signed_points(value: Any, where: str) -> list[tuple[float, float, bool]]:
    """Points with whether they lie on the object: a third number 0 says that they lie beside it."""
    signed = []
    for row in value if isinstance(value, list) and value else [value]:
        is_on = not (isinstance(row, list) and row[2:] == [0])
        ((x, y),) = _points([row if is_on else row[:2]], where)
        signed.append((x, y, is_on))
    return signed


def _points(value: Any, where: str) -> list[tuple[float, float]]:
    points = []
    for point in value if isinstance(value, Sequence) and not isinstance(value, str) else []:
        if not isinstance(point, Sequence) or isinstance(point, str) or len(point) != 2:
            raise UserError(f"{where} must be [x, y] in pixels, not {point!r}.")
        points.append((float(_number(point[0], where)), float(_number(point[1], where))))
    if not points:
        raise UserError(f"{where} must be points [x, y] in pixels, not {value!r}.")
    return points
