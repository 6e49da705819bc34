"""Identities of Gaussians that come back from another program, most of which keep no encodings."""

from collections.abc import Mapping

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from gradiseg.classifier import identify
from gradiseg.labelled import LabelledModel
from utils.errors import UserError
from utils.log import logger


def identities(
    model: LabelledModel, params: Mapping[str, Tensor], ids: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Encodings (M, 1, 16) and ids (M,) of Gaussians `params`, in the identities of `model`.

    Ids are `ids` where given, else what the classifier says of the encodings where there are some, else those
    of the nearest Gaussians of the model. Encodings are their own, else those of the nearest Gaussian of the
    same id.
    Raises:
        UserError: an id that the model does not have.
    """
    known = model.counts()
    unknown = [] if ids is None else [id for id in ids.unique().tolist() if id not in known]
    if unknown:
        listed = ", ".join(map(model.describe, known))
        raise UserError(f"labels: no Gaussian of the run has the id {unknown[0]}. Its ids: {listed}.")
    encodings = params["obj_dc"]
    if encodings.any():
        own = identify(encodings.flatten(1), model.classifier().cpu()) if ids is None else ids
        return encodings, own
    if ids is None:
        nearest, distance = _nearest(model.params["xyz"], params["xyz"])
        logger.warning(
            "no labels: each Gaussian takes the identity of the nearest one of the run, at most %.3g away.",
            float(distance.max()),
        )
        return model.params["obj_dc"].cpu()[nearest], model.ids.cpu()[nearest]
    encodings = torch.empty_like(encodings)
    for id in ids.unique().tolist():
        of_id, chosen = (model.ids == id).nonzero()[:, 0].cpu(), ids == id
        nearest, _ = _nearest(model.params["xyz"][of_id.to(model.ids.device)], params["xyz"][chosen])
        encodings[chosen] = model.params["obj_dc"].cpu()[of_id[nearest]]
    return encodings, ids


def _nearest(points: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the nearest points (N, 3) to queries (M, 3), and their distances."""
    distance, rows = cKDTree(points.cpu().numpy()).query(queries.cpu().numpy())
    return torch.from_numpy(rows), torch.from_numpy(distance)
