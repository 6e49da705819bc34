"""Removes objects from a model, or everything but them."""

from torch import Tensor, nn

from arguments import EditParams
from gradiseg.selection.by_id import count_ids, select_objects
from gradiseg.selection.hull import HullRule
from gradiseg.votes import Votes
from scene.gaussian_model import GaussianModel
from scene.gaussian_ops import keep
from utils.errors import UserError


def edit_objects(
    model: GaussianModel, classifier: nn.Conv2d, edit: EditParams, votes: Votes | None = None
) -> dict[str, int]:
    """Removes the selected ids from `model` in place, or keeps them alone (`edit.mode`).

    `votes` say whose each Gaussian is; without them its encoding does.

    Returns:
        how many Gaussians the threshold and the hulls selected, `selected` together, and how many are `left`.

    Raises:
        UserError: no ids given, an id that the classifier lacks, nothing selected or nothing left; lists
            the ids that occur.
    """
    identity = model.get_objects.detach()
    _check_ids(edit.select_obj_id, identity, classifier)
    hull = HullRule(edit.hull)
    selection, counts = select_objects(
        model.get_xyz.detach(), identity, classifier, edit.select_obj_id, edit.removal_thresh, hull, votes
    )
    kept = ~selection if edit.mode == "remove" else selection
    if not selection.any():
        raise UserError(
            f"no Gaussian has a probability above {edit.removal_thresh} of {_listed(edit.select_obj_id)}. "
            f"Lower --removal_thresh or choose from {_inventory(identity, classifier)}."
        )
    if not kept.any():
        raise UserError(f"{_listed(edit.select_obj_id)} select every Gaussian: nothing would be left.")
    keep(model, kept)
    return counts | {"selected": int(selection.sum()), "left": model.num_gaussians}


def _check_ids(ids: list[int], identity: Tensor, classifier: nn.Conv2d) -> None:
    unknown = [chosen for chosen in ids if chosen >= classifier.out_channels]
    if ids and not unknown:
        return
    problem = (
        f"id {unknown[0]} is not in the model ({classifier.out_channels} classes)"
        if unknown
        else "--ids (or select_obj_id in the JSON) is required"
    )
    raise UserError(f"{problem}. Choose from {_inventory(identity, classifier)}.")


def _listed(ids: list[int]) -> str:
    return f"--ids {' '.join(map(str, ids))}"


def _inventory(identity: Tensor, classifier: nn.Conv2d) -> str:
    counts = count_ids(identity, classifier).items()
    return "the ids that occur (Gaussians): " + ", ".join(f"{chosen} ({count:,})" for chosen, count in counts)
