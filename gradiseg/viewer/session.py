"""What one person sees and has selected, over the document that all share. It knows nothing of browsers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaussian_renderer import draw
from gradiseg.classifier import identify, map_encodings
from gradiseg.editing.document import operation_of
from gradiseg.editing.motion import Motion
from gradiseg.editing.operations import Operation, moved
from gradiseg.editing.placement import Box, box_of
from gradiseg.evaluation.text import select_ids
from gradiseg.labelled import LabelledModel
from gradiseg.selection import free_view, in_view
from gradiseg.selection.expression import Chooser, Expression
from gradiseg.viewer.drawing import (
    Canvas,
    Layout,
    Mode,
    Pane,
    Point,
    panes_of,
    paste,
    photograph_picture,
    picture,
    with_outline,
)
from gradiseg.viewer.workspace import Workspace
from scene.cameras import Camera
from utils.errors import UserError
from utils.image import to_uint8

SMALL_WIDTH = 480  # pixels, while the camera moves and for clicks
LASSO_CLOSES = 0.02  # of the canvas' width: a corner so near to the first one closes the lasso


@dataclass(frozen=True)
class Shown:
    """What a client's pictures show. hidden: ids that are left out. view: of the photograph."""

    mode: Mode = Mode.SELECTION
    layout: Layout = Layout.ONE
    hidden: frozenset[int] = frozenset()
    view: str = ""
    through: bool = False  # whether regions also take what lies behind


class Session:
    """One client: its camera, its selection, what it sees.

    Attributes: camera, of the size of its canvas; None until the first is known. shown. selection, an
    expression or None; lasso, the corners that were set; clicked, the points of a new object. motion, a
    movement that is tried out; painting, an operation that is.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.camera: Camera | None = None
        self.shown = Shown(view=next(iter(workspace.views), ""))
        self.selection: Expression | None = None
        self.lasso: list[Point] = []
        self.clicked: list[dict[str, Any]] = []  # entries of the expression
        self.motion: Motion | None = None
        self.painting: Operation | None = None
        self._chosen: tuple[LabelledModel, Any, Tensor] | None = None  # of a model and an expression

    @property
    def model(self) -> LabelledModel:
        """The document's."""
        return self.workspace.document.model

    # Looking.

    def show(self, **changes: Any) -> None:
        """Change fields of `shown`."""
        self.shown = replace(self.shown, **changes)

    def look(self, camera: Mapping[str, Any]) -> None:
        """Stand elsewhere; a lasso that was begun is dropped.

        Raises: UserError for what is no camera.
        """
        self.camera = free_view.camera_of(camera, "viewer").with_matrices_on(self.model.ids.device)
        self.lasso.clear()

    def canvas(self, small: bool = False) -> Canvas:
        """What the client sees, (H, W, 3); at a width of `SMALL_WIDTH` where `small`."""
        whole = self.standing()
        camera = sized(whole) if small else whole
        model, chosen = self.tried_out()
        panes = self._panes(camera)
        with self.workspace.drawing:
            pictures = [self._draw(pane, model, chosen) for pane in panes]
        scale = camera.image_width / whole.image_width
        return with_outline(paste(camera, panes, pictures), [(x * scale, y * scale) for x, y in self.lasso])

    def standing(self) -> Camera:
        """The camera. What needs it twice keeps it: another thread may move it meanwhile."""
        assert self.camera is not None
        return self.camera

    def _panes(self, camera: Camera) -> list[Pane]:
        return panes_of(self.shown.layout, camera, self.workspace.views.get(self.shown.view))

    def _draw(self, pane: Pane, model: LabelledModel, chosen: Tensor | None) -> Canvas:
        size = (pane.camera.image_width, pane.camera.image_height)
        if pane.photograph is not None:
            return photograph_picture(pane.photograph, *size)
        if pane.is_original:
            model, chosen = self.workspace.document.original, None
        visible = self._visible(model)
        if not bool(visible.all()):
            model, chosen = model.rows(visible), None if chosen is None else chosen[visible]
        colors = self.workspace.identity_colors() if self.shown.mode is Mode.IDENTITY else None
        return picture(model, pane.camera, self.shown.mode, self.workspace.run.background, chosen, colors)

    def _visible(self, model: LabelledModel) -> Tensor:
        hidden = model.ids.new_tensor(sorted(self.shown.hidden))
        return ~torch.isin(model.ids, hidden)

    # Selecting.

    def chosen(self) -> Tensor:
        """The selection (N,) bool in the document's model; nothing where it means nothing any more."""
        model = self.model
        if self.selection is None:
            return torch.zeros_like(model.ids, dtype=torch.bool)
        if self._chosen is None or self._chosen[0] is not model or self._chosen[1] is not self.selection:
            self._chosen = (model, self.selection, self._evaluated(self.selection))
        return self._chosen[2]

    def _evaluated(self, expression: Expression) -> Tensor:
        try:
            segmenter = self.workspace.segmenter
            return Chooser(self.model, self.workspace.views, "select", segmenter=segmenter)(expression)
        except UserError:
            return torch.zeros_like(self.model.ids, dtype=torch.bool)

    def select(self, expression: Expression | None, add: bool = False) -> None:
        """Select; with `add` also what was selected, or without this where all of it was selected."""
        self.painting = None
        if expression is None or not add or self.selection is None:
            self.selection = expression
            return
        before, more = self.chosen(), self._evaluated(expression)
        if bool((before & more).sum() == more.sum()):
            left = {"difference": [self.selection, expression]}
            self.selection = left if bool((before & ~more).any()) else None
        elif isinstance(self.selection, list) and isinstance(expression, int):
            self.selection = [*self.selection, expression]
        else:
            self.selection = [self.selection, expression]

    def click(self, x: float, y: float, add: bool = False) -> None:
        """Select the object at a point of the canvas, nothing where there is none; or set a lasso's corner.

        A recipe gets its id: the view that was clicked in is none of the scene's.
        """
        id = self.id_at(x, y)
        if id and bool((self.model.ids == id).any()):
            self.select(id, add)
        elif not add:
            self.select(None)

    def id_at(self, x: float, y: float) -> int:
        """The id at a point of the canvas, 0 where there is nothing."""
        whole = self.standing()
        camera = sized(whole)
        scale = camera.image_width / whole.image_width
        x, y = x * scale, y * scale
        for pane in self._panes(camera):
            if pane.holds(x, y):
                model = self.workspace.document.original if pane.is_original else self.model
                visible = self._visible(model)
                with self.workspace.drawing:
                    return in_view.id_at(model.rows(visible), pane.camera, x - pane.left, y - pane.top)
        return 0

    def region(self, corners: list[Point], add: bool = False) -> None:
        """Select what shows within a polygon of the canvas.

        Raises: UserError for fewer than three corners, or where the first lies in no picture.
        """
        if len(corners) < 3:
            raise UserError("A lasso needs three corners at least. Click once more.")
        pane = self._pane_at(*corners[0])
        inside = [[x - pane.left, y - pane.top] for x, y in corners]
        expression: dict[str, Any] = {
            "lasso": inside,
            "camera": free_view.entry_of(pane.camera, self.model.origin),
        }
        if self.shown.through:
            expression["through"] = True
        if self.shown.hidden:
            expression["hidden"] = sorted(self.shown.hidden)
        self.select(expression, add)

    def _pane_at(self, x: float, y: float) -> Pane:
        pane = next((pane for pane in self._panes(self.standing()) if pane.holds(x, y)), None)
        if pane is None:
            raise UserError("Begin within a picture.")
        return pane

    def click_object(self, x: float, y: float, is_on: bool = True) -> None:
        """Select the object, with an id or without, on which points of the canvas lie: those so far and this.

        is_on: whether this one lies on it, or beside it.
        Raises: UserError where the first one lies beside it, or in no picture.
        """
        if not self.clicked and not is_on:
            raise UserError("Click on the object first; Shift+click on what is selected too much.")
        pane = self._pane_at(x, y)
        camera = free_view.entry_of(pane.camera, self.model.origin)
        point = [x - pane.left, y - pane.top, *([] if is_on else [0])]
        if self.clicked and self.clicked[-1]["camera"] == camera:
            self.clicked[-1] = {"points": [*self.clicked[-1]["points"], point], "camera": camera}
        else:
            self.clicked.append({"points": [point], "camera": camera})
        expression: dict[str, Any] = {"clicked": list(self.clicked)}
        if self.workspace.segmenter is not None:
            expression["by"] = "network"
        if self.shown.hidden:
            expression["hidden"] = sorted(self.shown.hidden)
        self.select(expression)

    def box(self, first: Point, second: Point, add: bool = False) -> None:
        """`region` of the rectangle between two corners."""
        (left, top), (right, bottom) = first, second
        self.region([(left, top), (right, top), (right, bottom), (left, bottom)], add)

    def lasso_corner(self, x: float, y: float) -> bool:
        """Set a corner of the lasso; one near to the first closes it, and True says so."""
        near = LASSO_CLOSES * self.standing().image_width
        if len(self.lasso) >= 3 and np.hypot(x - self.lasso[0][0], y - self.lasso[0][1]) <= near:
            self.close_lasso()
            return True
        self.lasso.append((x, y))
        return False

    def close_lasso(self, add: bool = False) -> None:
        """Select what shows in the lasso, and forget it."""
        corners = list(self.lasso)
        self.lasso.clear()
        self.region(corners, add)

    def grow(self, radius: float) -> None:
        """Take in neighbours within a radius in scene units."""
        self.select({"grow": float(radius), "of": self.needed()})

    def shrink(self, radius: float) -> None:
        """Leave out what has a neighbour outside within a radius in scene units."""
        self.select({"shrink": float(radius), "of": self.needed()})

    def invert(self) -> None:
        """Select what is not selected."""
        self.select({"all": True} if self.selection is None else {"not": self.selection})

    def needed(self) -> Expression:
        """The selection; UserError where nothing is selected."""
        if self.selection is None or not bool(self.chosen().any()):
            raise UserError("Nothing is selected. Click on an object first.")
        return self.selection

    def words(self, text: str) -> None:
        """Select the ids of what words name in the picture, see `evaluation.text`.

        Raises: UserError where the models that find words are not there, or nothing was found.
        """
        if not text.strip():
            raise UserError("No words. Write what to look for, such as: red mug.")
        marker = self.workspace.marker()
        camera, model = self._panes(self.standing())[-1].camera, self.model
        with self.workspace.drawing, torch.no_grad():
            color, encodings = draw(
                camera, model.model(), self.workspace.run.background, model.params["obj_dc"][:, 0]
            )
        pixels = to_uint8(color).permute(1, 2, 0).cpu().numpy()
        mark = marker(pixels, [text.strip()])[text.strip()]
        shown = identify(map_encodings(encodings), model.classifier()).cpu().numpy()
        ids = [id for id in select_ids(shown, mark) if id in model.counts()]
        if not ids:
            raise UserError(f"{text.strip()!r} was not found in this picture. Look from elsewhere.")
        self.select(ids)

    # Editing.

    def edit(self, operation: str, **fields: Any) -> None:
        """Do an operation to the selection; what it makes becomes the selection.

        Raises: UserError where nothing is selected, or it cannot be done.
        """
        before = self.model.counts().keys()
        self.workspace.apply({"operation": operation, "select": self.needed(), **fields})
        self.select_new(before)

    def select_new(self, before: Any) -> None:
        """Select the id that was not among those `before`, where there is one."""
        new = [id for id in self.model.counts() if id not in before]
        if new:
            self.select(new[0])

    def rename(self, id: int, name: str) -> None:
        """Call an id something."""
        if self.model.names.get(id) != name:
            self.workspace.apply({"operation": "rename", "id": id, "name": name.strip()})

    def insert(self, content: bytes, name: str = "") -> None:
        """Insert an uploaded object, and select it."""
        before = self.model.counts().keys()
        self.workspace.insert(content, name)
        self.select_new(before)

    def insert_from(self, lender: str, id: int) -> None:
        """Insert an object of another run, and select it."""
        before = self.model.counts().keys()
        self.workspace.insert_from(lender, id)
        self.select_new(before)

    def box_of_selection(self) -> Box | None:
        """The box of what is selected, None for nothing."""
        chosen = self.chosen()
        return box_of(self.model.params["xyz"][chosen].cpu()) if bool(chosen.any()) else None

    def try_out(self, motion: Motion | None) -> None:
        """Show the selection moved, without doing it."""
        self.motion = motion

    def paint(self, **fields: Any) -> None:
        """Show the selection recoloured, without doing it."""
        self.painting = None
        if fields and self.selection is not None:
            entry = {"operation": "recolour", "select": self.selection, **fields}
            self.painting = operation_of(entry, "viewer")

    def tried_out(self) -> tuple[LabelledModel, Tensor | None]:
        """The model as it is shown, and what is selected in it."""
        model, chosen, motion, painting = self.model, self.chosen(), self.motion, self.painting
        if painting is not None and bool(chosen.any()):
            return painting.apply(
                model, self.workspace.document.surroundings
            ), None  # colours as they will be
        if motion is not None and len(chosen) == model.count and bool(chosen.any()):
            model = moved(model, chosen, motion)
        return model, chosen if len(chosen) == model.count else None

    def move(self) -> None:
        """Do the movement that is tried out."""
        motion, self.motion = self.motion, None
        if motion is None or motion == Motion(motion.pivot):
            return
        self.edit(
            "transform",
            degrees=motion.degrees,
            axis=list(motion.axis),
            pivot=list(motion.pivot),
            scale=motion.scale,
            translation=list(motion.translation),
        )


def sized(camera: Camera) -> Camera:
    """A camera at `SMALL_WIDTH` at most."""
    width = camera.image_width
    if width <= SMALL_WIDTH:
        return camera
    return camera.at_resolution(SMALL_WIDTH, max(1, camera.image_height * SMALL_WIDTH // width))


def motion_between(pivot: Any, position: Any, wxyz: Any) -> Motion:
    """The motion of a handle from `pivot` (3,), unturned, to `position` (3,) with a quaternion (4,)."""
    w, *axis = (float(value) for value in wxyz)
    sine = float(np.linalg.norm(axis))
    degrees = float(np.degrees(2 * np.arctan2(sine, w)))
    pivot, position = ([float(value) for value in vector] for vector in (pivot, position))
    shift = [end - start for start, end in zip(pivot, position, strict=True)]
    if sine < 1e-9:
        return Motion(pivot, translation=shift)
    return Motion(pivot, [value / sine for value in axis], degrees, translation=shift)
