"""Identities of what an edit makes: encodings and classifier rows, so that rendered masks of an edited model
stay right.

A pixel's encoding is a mean of the encodings along its ray, and the classifier is linear in it. So a new
object needs an encoding that the classifier tells from every other, and from mixtures with them at half and
half.
"""

import torch
from torch import Tensor

from gradiseg.classifier import ABSENT_BIAS, UNLABELLED
from gradiseg.labelled import LabelledModel
from utils.errors import UserError
from utils.log import logger

REACH = 4.0  # a new encoding lies so many times as far out as the farthest one in its direction
SMALLEST_MARGIN = 4.0  # in logits: e^4 to 1 against the next id
SAMPLE = 100_000  # Gaussians that are looked at


def new_identity(model: LabelledModel) -> tuple[Tensor, Tensor, Tensor]:
    """Encoding (16,), classifier row (16,) and bias of an object that is none of the model's.

    Along the direction u in which encodings vary least lies the new one, far out. Its logit is a linear fit
    to the winner's logit at the encodings that there are (and at 0, that of an empty pixel), less a margin,
    plus what grows along u until it wins by the same margin at the new encoding. The margin is that of
    trained ids, so that the new one wins where its Gaussians hold more than half of a pixel.

    Where no linear fit stays below the winners (with about as many new objects as an encoding has channels),
    the logit is that of the winner at the new encoding, plus what grows along u from below 0 at all encodings
    that there are to above 0 at the new one: no Gaussian is taken for another's, though mixtures may be.
    Raises:
        UserError: the bias would be that of an id that there is not.
    """
    if not model.count:
        raise ValueError("a model without Gaussians has no identities to tell a new one from")
    encodings = model.params["obj_dc"].flatten(1)  # (N, 16)
    encodings = encodings[:: max(1, model.count // SAMPLE)].double()
    empty = torch.zeros_like(encodings[: max(1, len(encodings) // 10)])
    encodings = torch.cat([encodings, empty])
    trained = model.bias > ABSENT_BIAS / 2
    weight, bias = model.weight[trained].double(), model.bias[trained].double()  # (K, 16), (K,)
    centre = encodings.mean(0)
    offsets = encodings - centre
    direction = torch.linalg.eigh(offsets.T @ offsets).eigenvectors[:, 0]  # (16,), of the least variance
    direction = direction * direction[direction.abs().argmax()].sign()
    along = offsets @ direction
    distance = REACH * along.abs().max().clamp_min(0.1 * offsets.norm(dim=1).mean()).clamp_min(1e-3)
    code = centre + distance * direction
    best = (encodings @ weight.T + bias).topk(min(2, len(bias)), 1).values  # (N, 1 or 2)
    margin = (best[:, 0] - best[:, -1]).median().clamp_min(SMALLEST_MARGIN)
    basis = torch.cat([encodings, torch.ones_like(encodings[:, :1])], 1)  # (N, 17)
    fit = torch.linalg.pinv(basis, rtol=1e-4) @ best[:, 0]  # (17,)
    there = (weight @ code + bias).max() - (fit[:-1] @ code + fit[-1])
    slope = (there + 2 * margin) / distance
    row, offset = fit[:-1] + slope * direction, fit[-1] - margin - slope * (centre @ direction)
    if bool((encodings @ row + offset >= best[:, 0]).any()):  # it would take what is another's
        logger.warning("identity encodings have no free direction left: masks of a new object may have gaps.")
        winner = (weight @ code + bias).argmax()
        reach = along.max().clamp_min(0)  # at most distance / REACH
        slope = 4 * margin / (distance - reach)
        row = weight[winner] + slope * direction
        offset = bias[winner] - slope * (centre @ direction + (reach + distance) / 2)
    if offset <= ABSENT_BIAS / 2:
        raise UserError(
            "no new id: identity encodings tell no more objects apart. Merge some, or train again."
        )
    return code, row, offset


def usual_encoding(model: LabelledModel, id: int) -> Tensor | None:
    """Mean encoding (16,) of the Gaussians of an id, None where it has none or the classifier takes it for
    another.
    """
    own = model.ids == id
    if not own.any() or id >= model.num_classes:
        return None
    code = model.params["obj_dc"][own].flatten(1).double().mean(0)
    winner = (model.weight.double() @ code + model.bias.double()).argmax()
    return code if int(winner) == id else None


def relabel(model: LabelledModel, chosen: Tensor, id: int) -> LabelledModel:
    """The Gaussians of a mask (N,) belong to `id`, an id of the model's or a new one."""
    code = usual_encoding(model, id)
    if code is None:
        code, row, bias = new_identity(model)
        model = model.with_class(id, row, bias)
    encodings = code[None, None].expand(int(chosen.sum()), 1, -1)
    ids = torch.full((int(chosen.sum()),), id, device=model.ids.device)
    return model.with_rows_changed(chosen, obj_dc=encodings, ids=ids)


def forget_removed(before: LabelledModel, after: LabelledModel) -> LabelledModel:
    """`after` without the classes of objects that only `before` has: no pixel is taken for one of them.

    Encodings of neighbours may still say a removed id where their votes do not. Id 0 stays: it is no object.
    """
    gone = sorted(set(before.counts()) - set(after.counts()) - {UNLABELLED})
    for id in gone:
        if id < after.num_classes:
            after = after.with_class(id, torch.zeros_like(after.weight[0]), ABSENT_BIAS)
    return after
