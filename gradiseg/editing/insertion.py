"""Objects that come into a scene: copies, and objects of files; each with an id, an encoding, a class."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from gradiseg.classifier import UNLABELLED
from gradiseg.editing.identity import new_identity
from gradiseg.editing.object_files import Stored
from gradiseg.labelled import LabelledModel
from utils.errors import UserError
from utils.log import logger


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
    return named(model.with_class(id, row, bias).followed_by(with_codes, ids), id, name)


def named(model: LabelledModel, id: int, name: str | None) -> LabelledModel:
    """The model in which `id` is called `name`; nothing where that is None, or the name of another object."""
    if name in {called for other, called in model.names_in_use.items() if other != id}:
        logger.warning("%r is the name of another object: the new one has none. rename gives it one.", name)
        name = None
    others = {other: called for other, called in model.names.items() if other != id and called != name}
    return replace(model, names=others if name is None else {**others, id: name})


def inserted(model: LabelledModel, stored: Stored, id: int | None, name: str | None) -> LabelledModel:
    """The model followed by the objects of a file.

    An object keeps its id where that is free, and its name; `id` and `name` are for one object alone. Objects
    that come back to the model from which they were extracted are put back as they were.
    Raises:
        UserError: an id that is taken, `id` or `name` for several objects.
    """
    objects = stored.model
    if id is None and name is None and _comes_back(model, objects):
        return _put_back(model, stored)
    counts = objects.counts()
    if len(counts) > 1 and (id is not None or name is not None):
        listed = ", ".join(map(objects.describe, counts))
        raise UserError(f"insert: id and name are for one object, here are {listed}. Select one of them.")
    taken = model.counts()
    for own in sorted(counts, key=lambda own: (own == UNLABELLED or own in taken, own)):  # who keeps it first
        kept = own if own != UNLABELLED and own not in taken else None
        part = objects.rows(objects.ids == own)
        called = name or objects.names.get(own)
        model = added(model, part.params, kept if id is None else id, called, "insert")
    return model


def _comes_back(model: LabelledModel, objects: LabelledModel) -> bool:
    """Whether the classifier of the objects is the model's, which has none of their ids any more."""
    present, own = set(model.counts()), set(objects.counts()) - {UNLABELLED}
    if present & own or max(present | own) >= objects.num_classes:
        return False
    rows = sorted(present)
    weight, bias = (tensor.to(model.weight) for tensor in (objects.weight, objects.bias))
    return torch.equal(weight[rows], model.weight[rows]) and torch.equal(bias[rows], model.bias[rows])


def _put_back(model: LabelledModel, stored: Stored) -> LabelledModel:
    """The model with objects and their classes as they were, in the rows that they had."""
    objects = stored.model
    for id in objects.counts():
        model = model.with_class(id, objects.weight[id], objects.bias[id])
        model = named(model, id, objects.names.get(id))
    before = model.count
    model = model.followed_by(objects.params, objects.ids, objects.support)
    if stored.rows is None or int(stored.rows.max()) >= model.count:
        return model
    order = torch.full((model.count,), -1)
    order[stored.rows] = torch.arange(before, model.count)
    order[order < 0] = torch.arange(before)
    return model.rows(order.to(model.ids.device))


def with_equal_degrees(model: LabelledModel, other: LabelledModel) -> tuple[LabelledModel, LabelledModel]:
    """Both with as many SH coefficients as the one that has more; those that lack are 0."""
    count = max(len(each.params["f_rest"][0]) for each in (model, other))

    def padded(each: LabelledModel) -> LabelledModel:
        rest = each.params["f_rest"]
        zeros = rest.new_zeros(len(rest), count - rest.shape[1], 3)
        return replace(each, params={**each.params, "f_rest": torch.cat([rest, zeros], 1)})

    return padded(model), padded(other)
