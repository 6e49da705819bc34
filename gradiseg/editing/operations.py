"""The operations of an edit. Each is small and pure: a labelled model in, another out.

| operation | what becomes of the identities |
|---|---|
| `remove` | rows go; an id that none has any more loses its class |
| `keep` | rows go, the rest stays as it is |
| `recolour`, `transform` | unchanged: the object keeps its id |
| `duplicate`, `insert` | a new id with an encoding and a classifier row of its own |
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
from gradiseg.editing.identity import forget_removed, new_identity, relabel
from gradiseg.editing.inpainting import inpainter
from gradiseg.editing.motion import Motion, move
from gradiseg.editing.object_files import ids_beside, names_beside, read_ids, read_names, read_object
from gradiseg.editing.origin import identities
from gradiseg.editing.placement import box_of, foot_of, up_of
from gradiseg.editing.style import restyled, stylizer
from gradiseg.labelled import LabelledModel
from gradiseg.selection.expression import Chooser, Expression
from scene.cameras import Camera
from utils.errors import UserError


@dataclass(frozen=True)
class Surroundings:
    """What an operation may need beside the model.

    - views: cameras of the scene by name
    - held_out: names of those that only test
    - folder: where relative paths of files begin
    - told: hears the share of a slow operation that is done, and may raise to stop it
    - find: the ids of an object given in words
    """

    views: Mapping[str, Camera]
    held_out: frozenset[str] = frozenset()
    folder: Path = Path()
    told: Callable[[float], None] = lambda share: None
    find: Callable[[str], Sequence[int]] | None = None

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
    """The Gaussians (N,) bool of a selection; UserError where there is none."""
    chosen = Chooser(model, scene.views, where, scene.find)(select)
    if not bool(chosen.any()):
        raise UserError(f"{where}: {select!r} selects no Gaussian. Give another selection.")
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
        return model.rows(choose(model, scene, self.select, "keep"))


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
            tint = torch.tensor(self.tint, dtype=torch.float64)
            matrix = colour.tint_matrix(tint, params, self.strength) @ matrix
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


def added(
    model: LabelledModel, params: Mapping[str, Tensor], id: int | None, name: str | None, where: str
) -> LabelledModel:
    """The model followed by Gaussians of a new id, by default the smallest that is free."""
    id = model.free_id() if id is None else id
    if id in model.counts():
        raise UserError(f"{where}: id {id} is taken. Leave it out, or choose {model.free_id()}.")
    code, row, bias = new_identity(model)
    count = len(params["xyz"])
    with_codes = {**params, "obj_dc": code[None, None].expand(count, 1, -1).to(model.params["obj_dc"])}
    ids = torch.full((count,), id, device=model.ids.device)
    names = {**model.names, id: name} if name else model.names
    return changed(model.with_class(id, row, bias).followed_by(with_codes, ids), names=names)


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
    """An object of a file, with a new id, placed as the file has it and moved."""

    select: Expression = field("selection", "not used", {"all": True})
    source: str = field("text", "file (.ply, .splat, .glb), or the folder of an extracted object", "")
    id: int | None = field("id", "of the object; default: the smallest that is free", None)
    name: str | None = field("text", "of the object", None)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        if not self.source:
            raise UserError("insert: source is missing: the file of an object, or the folder of one.")
        params = read_object(scene.folder / self.source, model.origin)
        model, params = with_equal_degrees(model, params)
        return added(model, move(params, self.motion(params["xyz"])), self.id, self.name, "insert")


def with_equal_degrees(
    model: LabelledModel, params: Mapping[str, Tensor]
) -> tuple[LabelledModel, dict[str, Tensor]]:
    """Both with as many SH coefficients as the one that has more; those that lack are 0."""
    count = max(model.params["f_rest"].shape[1], params["f_rest"].shape[1])

    def padded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rest = tensors["f_rest"]
        zeros = rest.new_zeros(len(rest), count - rest.shape[1], 3)
        return {**tensors, "f_rest": torch.cat([rest, zeros], 1)}

    return changed(model, params=padded(model.params)), padded(params)


@dataclass(frozen=True)
class Import(Operation):
    """The Gaussians of a file in place of all: the scene as another program changed it after an export."""

    source: str = field("text", "file: .ply, .splat or .glb")
    labels: str | None = field("text", "ids of its rows (.npy); default: those beside it", None)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        path = scene.folder / self.source
        params = read_object(path, model.origin)
        labels = ids_beside(path) if self.labels is None else scene.folder / self.labels
        ids = None if self.labels is None and not labels.is_file() else read_ids(labels)
        if ids is not None and len(ids) != len(params["xyz"]):
            raise UserError(
                f"{labels}: {len(ids):,} ids, but {path} has {len(params['xyz']):,} Gaussians. Its rows were "
                "changed: move the ids away, and each takes the id of the nearest Gaussian of the run."
            )
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
        names = {**model.names, id: self.name} if self.name else model.names
        return changed(relabel(model, chosen, id), names=names)


@dataclass(frozen=True)
class Rename(Operation):
    """Call an id something."""

    id: Expression = field("selection", "the id, or the name that it has")
    name: str = field("text", "its new name")

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        id = one_id(model, self.id, "rename: id")
        if self.name in model.names.values() and model.names.get(id) != self.name:
            raise UserError(f"rename: {self.name!r} is the name of another object.")
        return changed(model, names={**model.names, id: self.name})


def one_id(model: LabelledModel, expression: Any, where: str) -> int:
    """The id that a number or a name means."""
    if isinstance(expression, str):
        return Chooser(model, {}, where).id_of(expression)
    if isinstance(expression, bool) or not isinstance(expression, int):
        raise UserError(f"{where} must be an id or a name, not {expression!r}.")
    return expression


@dataclass(frozen=True)
class Fill(Operation):
    """Take Gaussians away, and fill the hole from what surrounds it."""

    select: Expression = field("selection", "what goes")
    inpainter: str = field("text", "biharmonic, telea, patchmatch or lama", "biharmonic")
    weights: str = field("word", "TorchScript file of lama's network", "")
    rounds: int = field("count", "of training", 250)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "fill")
        if bool(chosen.all()):
            raise UserError(f"fill: {self.select!r} selects every Gaussian: nothing would be left.")
        weights = str(scene.folder / self.weights) if self.weights else ""
        inpaint = inpainter(self.inpainter, weights)
        result = filled(model, chosen, scene.training_views, inpaint, self.rounds, scene.told)
        return forget_removed(model, result)


@dataclass(frozen=True)
class Style(Operation):
    """Give Gaussians the look of a style, baked into their colours."""

    select: Expression = field("selection", "what is restyled")
    style: Expression = field("selection", "number of a built-in style, 0 to 25, or path of a picture")
    strength: float = field("share", "of the style", 1.0)
    rounds: int = field("count", "of training", 250)

    def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
        chosen = choose(model, scene, self.select, "style")
        restyle = stylizer(str(self.style), self.strength, scene.folder)
        return restyled(model, chosen, scene.training_views, restyle, self.rounds, scene.told)


OPERATIONS: dict[str, type[Operation]] = {
    operation.__name__.lower(): operation
    for operation in (
        *(Remove, Keep, Fill, Recolour, Style, Transform, Duplicate, Swap),
        *(Insert, Import, Merge, Split, Rename),
    )
}
