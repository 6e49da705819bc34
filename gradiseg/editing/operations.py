"""The operations of an edit. Each is small and pure: a labelled model in, another out.

| operation | what becomes of the identities |
|---|---|
| `remove`, `keep` | rows go; an id that none has any more loses its class |
| `recolour`, `transform` | unchanged: the object keeps its id |
| `extract` | unchanged: the object is written with its encodings and the classifier |
| `duplicate`, `insert` | new ids with encodings and classifier rows of their own |
| `swap` | unchanged: both objects keep their ids, in each other's places |
| `import` | rows of a file take ids from labels beside it, from its encodings, or from the nearest row |
| `merge` | the selection takes over the encoding of the id that it joins |
| `split` | a new id, as with `duplicate` |
| `rename` | unchanged |
| `fill` | new Gaussians take the encodings of the ids that surround the hole |
| `style` | unchanged |
"""

# ruff: noqa: RUF009 - `field` returns a dataclass field
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradiseg.editing import colour
from gradiseg.editing.fields import field
from gradiseg.editing.fill import filled
from gradiseg.editing.identity import forget_removed, relabel
from gradiseg.editing.inpainting import inpainter
from gradiseg.editing.insertion import added, inserted, named, with_equal_degrees
from gradiseg.editing.motion import Motion, move
from gradiseg.editing.object_files import (
    Stored,
    extract,
    names_beside,
    read_ids_beside,
    read_names,
    read_object,
)
from gradiseg.editing.origin import identities
from gradiseg.editing.placement import box_of, foot_of, up_of
from gradiseg.editing.style import restyled, stylizer
from gradiseg.labelled import LabelledModel
from gradiseg.selection.expression import Chooser, Expression
from pretrained.prompted import PromptedSegmenter
from scene.cameras import Camera
from scene.formats.files import read_gaussians
from utils.errors import UserError
from utils.log import logger


@dataclass(frozen=True)
class Surroundings:
    """What an operation may need beside the model.

    - views: cameras of the scene by name
    - held_out: names of those that only test
    - overwrite: whether an operation may replace what another wrote
    - told: hears the share of a slow operation that is done, and may raise to stop it
    - find: the ids of an object given in words
    - segmenter: a network that cuts out what is clicked
    """

    views: Mapping[str, Camera]
    held_out: frozenset[str] = frozenset()
    overwrite: bool = False
    told: Callable[[float], None] = lambda share: None
    find: Callable[[str], Sequence[int]] | None = None
    segmenter: PromptedSegmenter | None = None

    @property
    def training_views(self) -> list[Camera]:
        """The views that may teach."""
        return [camera for name, camera in self.views.items() if name not in self.held_out]


@dataclass(frozen=True)
class Operation:
    """One step of an edit; its fields are those of its entry in a recipe."""

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        """The model after it.

        Raises:
            UserError: a selection that cannot be made, an id that is taken, a file that cannot be read.
        """
        raise NotImplementedError


def choose(model: LabelledModel, scene: Surroundings, select: Expression, where: str) -> Tensor:
    """The Gaussians (N,) bool of a selection, and says what they are; UserError where there is none."""
    chosen = Chooser(model, scene.views, where, scene.find, scene.segmenter)(select)
    if not bool(chosen.any()):
        raise UserError(f"{where}: {select!r} selects no Gaussian. Give another selection.")
    objects = model.rows(chosen)
    box = box_of(objects.params["xyz"].cpu())
    centre, size = ("[" + ", ".join(f"{x:.2f}" for x in corner) + "]" for corner in (box.centre, box.size))
    of = ", ".join(map(model.describe, objects.counts()))
    logger.info(f"{where}: {objects.count:,} Gaussians of {of}; box of {size} about {centre}.")
    return chosen


@dataclass(frozen=True)
class Remove(Operation):
    """Take Gaussians away."""

    select: Expression = field("selection", "what goes")

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "remove")
        if bool(chosen.all()):
            raise UserError(f"remove: {self.select!r} selects every Gaussian: nothing would be left.")
        return forget_removed(model, model.rows(~chosen))


@dataclass(frozen=True)
class Keep(Operation):
    """Take everything else away."""

    select: Expression = field("selection", "what stays")

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        return forget_removed(model, model.rows(choose(model, scene, self.select, "keep")))


@dataclass(frozen=True)
class Extract(Operation):
    """Write Gaussians into a folder, with all that makes them objects; the model stays as it is."""

    select: Expression = field("selection", "what is written")
    to: str = field("path", "folder")

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        extract(Path(self.to), model, choose(model, scene, self.select, "extract"), scene.overwrite)
        return model


@dataclass(frozen=True)
class Recolour(Operation):
    """Map colours by hue, saturation, tint, then a matrix and an offset: exact from every direction."""

    select: Expression = field("selection", "what is recoloured")
    hue: float = field("number", "degrees by which hues turn", 0.0)
    saturation: float = field("number", "0 = grey, 1 = as it is", 1.0)
    tint: list[float] | None = field("colour", "colour that the object takes, light and shade kept", None)
    strength: float = field("share", "of the tint", 1.0)
    matrix: list[list[float]] | None = field("matrix", "applied to colours (red, green, blue)", None)
    offset: list[float] = field("vector", "added to colours", [0.0, 0.0, 0.0])

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "recolour")
        params = model.rows(chosen).params
        matrix = colour.saturation_matrix(self.saturation) @ colour.hue_matrix(self.hue)
        if self.tint is not None:
            turned = colour.recolour(params, matrix, torch.zeros(3))
            tint = torch.tensor(self.tint, dtype=torch.float64)
            matrix = colour.tint_matrix(tint, turned, self.strength) @ matrix
        if self.matrix is not None:
            matrix = torch.tensor(self.matrix, dtype=torch.float64) @ matrix
        painted = colour.recolour(params, matrix, torch.tensor(self.offset, dtype=torch.float64))
        return model.with_rows_changed(chosen, f_dc=painted["f_dc"], f_rest=painted["f_rest"])


MOVED = ("xyz", "scaling", "rotation", "f_rest")


def moved(model: LabelledModel, chosen: Tensor, motion: Motion) -> LabelledModel:
    """The model with the Gaussians of a mask (N,) moved."""
    params = move(model.rows(chosen).params, motion)
    return model.with_rows_changed(chosen, **{name: params[name] for name in MOVED})


@dataclass(frozen=True)
class Transform(Operation):
    """Turn, scale and move: positions, shapes and view-dependent colours."""

    select: Expression = field("selection", "what moves")
    degrees: float = field("number", "angle of the turn", 0.0)
    axis: list[float] = field("direction", "of the turn", [0.0, 0.0, 1.0])
    pivot: list[float] | None = field("vector", "fixed point of both; default: the middle of its box", None)
    scale: float = field("positive", "of sizes and distances from the pivot", 1.0)
    translation: list[float] = field("vector", "in the scene's units", [0.0, 0.0, 0.0])

    def motion(self, points: Tensor) -> Motion:
        """The motion, for an object of points (M, 3)."""
        pivot = box_of(points).centre.tolist() if self.pivot is None else self.pivot
        return Motion(pivot, self.axis, self.degrees, self.scale, self.translation)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "transform")
        return moved(model, chosen, self.motion(model.params["xyz"][chosen]))


@dataclass(frozen=True)
class Duplicate(Transform):
    """A copy with a new id, turned, scaled and moved like `transform`."""

    id: int | None = field("id", "of the copy; default: the smallest that is free", None)
    name: str | None = field("text", "of the copy", None)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "duplicate")
        original = model.rows(chosen).params
        copy = move(original, self.motion(original["xyz"]))
        return added(model, copy, self.id, self.name, "duplicate")


@dataclass(frozen=True)
class Swap(Operation):
    """Two objects exchange places, each standing on what the other stood on."""

    first: Expression = field("selection", "one object")
    second: Expression = field("selection", "the other")
    up: list[float] | None = field(
        "direction", "upwards in the scene; default: as the cameras were held", None
    )

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        one, other = (choose(model, scene, select, "swap") for select in (self.first, self.second))
        if bool((one & other).any()):
            raise UserError(f"swap: {self.first!r} and {self.second!r} have Gaussians in common.")
        up = up_of(scene.views.values()) if self.up is None else torch.tensor(self.up, dtype=torch.float64)
        points = model.params["xyz"]
        step = foot_of(points[other].cpu(), up) - foot_of(points[one].cpu(), up)
        model = moved(model, one, Motion(translation=step.tolist()))
        return moved(model, other, Motion(translation=(-step).tolist()))


@dataclass(frozen=True)
class Insert(Transform):
    """Objects of a file, placed as it has them and moved as one."""

    select: Expression = field("selection", "which of its objects, where it has ids", {"all": True})
    source: str = field("path", "file (.ply, .splat, .glb), extracted object, or run", "")
    id: int | None = field("id", "of one object; default: its own if free, else the smallest free", None)
    name: str | None = field("text", "of one object; default: its own", None)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        if not self.source:
            raise UserError("insert: source is missing: the file of an object, or the folder of one.")
        stored = read_object(Path(self.source), model.origin)
        chosen = choose(stored.model, Surroundings({}), self.select, f"insert: {self.source}")
        model, objects = with_equal_degrees(model, stored.model.rows(chosen))
        objects = changed(objects, params=move(objects.params, self.motion(objects.params["xyz"])))
        rows = None if stored.rows is None else stored.rows[chosen]
        return inserted(model, Stored(objects, rows), self.id, self.name)


@dataclass(frozen=True)
class Import(Operation):
    """The Gaussians of a file in place of all: the scene as another program changed it after an export."""

    source: str = field("path", "file: .ply, .splat or .glb")
    labels: str | None = field("path", "ids of its rows (.npy); default: those beside it", None)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        path = Path(self.source)
        params = read_gaussians(path, model.origin)
        ids = read_ids_beside(path, len(params["xyz"]), None if self.labels is None else Path(self.labels))
        params["obj_dc"], ids = identities(model, params, ids)
        params = {name: tensor.to(model.ids.device) for name, tensor in params.items()}
        names = {**model.names, **read_names(names_beside(path))}
        support = model.support.new_zeros(len(ids), 2)
        return changed(model, params=params, ids=ids.to(model.ids.device), names=names, support=support)


@dataclass(frozen=True)
class Merge(Operation):
    """A selection joins an id."""

    select: Expression = field("selection", "what joins")
    into: Expression = field("selection", "the id, or its name, that it joins")

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "merge")
        into = one_id(model, self.into, "merge: into")
        gone = {id: n for id, n in model.names.items() if id != into}
        merged = relabel(model, chosen & (model.ids != into), into)
        left = merged.counts()
        return changed(merged, names={id: n for id, n in model.names.items() if id not in gone or id in left})


@dataclass(frozen=True)
class Split(Operation):
    """A selection gets an id of its own."""

    select: Expression = field("selection", "what is split off")
    id: int | None = field("id", "new id; default: the smallest that is free", None)
    name: str | None = field("text", "its name", None)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "split")
        id = model.free_id() if self.id is None else self.id
        if id in model.counts():
            raise UserError(f"split: id {id} is taken. Leave it out, or choose {model.free_id()}.")
        return named(relabel(model, chosen, id), id, self.name)


@dataclass(frozen=True)
class Rename(Operation):
    """Call an id something."""

    id: Expression = field("selection", "the id, or the name that it has")
    name: str = field("text", "its new name")

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        id = one_id(model, self.id, "rename: id")
        if self.name in model.names_in_use.values() and model.names.get(id) != self.name:
            raise UserError(f"rename: {self.name!r} is the name of another object.")
        return named(model, id, self.name)


def one_id(model: LabelledModel, expression: Any, where: str) -> int:
    """The id that a number or a name means; it has Gaussians."""
    chooser = Chooser(model, {}, where)
    id = chooser.id_of(expression) if isinstance(expression, str) else expression
    if isinstance(id, bool) or not isinstance(id, int):
        raise UserError(f"{where} must be an id or a name, not {expression!r}.")
    chooser(id)
    return id


@dataclass(frozen=True)
class Fill(Operation):
    """Take Gaussians away, and fill the hole from what surrounds it."""

    select: Expression = field("selection", "what goes")
    inpainter: str = field("text", "clone, biharmonic, telea, patchmatch or lama", "biharmonic")
    weights: str | None = field("path", "TorchScript file of lama's network", None)
    rounds: int = field("count", "of training; clone needs none", 250)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "fill")
        if bool(chosen.all()):
            raise UserError(f"fill: {self.select!r} selects every Gaussian: nothing would be left.")
        inpaint = inpainter(self.inpainter, self.weights or "")
        rounds = 0 if self.inpainter == "clone" else self.rounds
        result = filled(model, chosen, scene.training_views, inpaint, rounds, scene.told)
        return forget_removed(model, result)


@dataclass(frozen=True)
class Style(Operation):
    """Give Gaussians the look of a style, baked into their colours."""

    select: Expression = field("selection", "what is restyled")
    style: int | str = field("style", "number of a built-in style, 0 to 25, or path of a picture")
    strength: float = field("share", "of the style", 1.0)
    rounds: int = field("count", "of training", 250)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "style")
        restyle = stylizer(str(self.style), self.strength)
        return restyled(model, chosen, scene.training_views, restyle, self.rounds, scene.told)


OPERATIONS: dict[str, type[Operation]] = {
    operation.__name__.lower(): operation
    for operation in (
        *(Remove, Keep, Fill, Recolour, Style, Transform, Duplicate, Swap),
        *(Extract, Insert, Import, Merge, Split, Rename),
    )
}
