"""Removing and keeping objects: the two are complements, and errors say what there is."""

import pytest
import torch
from torch import nn

from arguments import EditParams
from gradiseg.editing.object_removal import edit_objects
from gradiseg.selection.hull import HullRule
from scene.gaussian_model import GaussianModel, parameter_shapes
from utils.errors import UserError


def make_model(ids: torch.Tensor) -> tuple[GaussianModel, nn.Conv2d]:
    """Random Gaussians with these ids, and the classifier that reads them: class c's logit is channel c."""
    generator = torch.Generator().manual_seed(0)
    model = GaussianModel(3)
    model.set_params(
        {
            name: torch.randn(len(ids), *shape, generator=generator)
            for name, shape in parameter_shapes(3).items()
        }
    )
    classifier = nn.Conv2d(16, 5, 1)
    with torch.no_grad():
        model.params["obj_dc"].zero_()[torch.arange(len(ids)), 0, ids] = 9.0
        classifier.weight.zero_()[:, :5, 0, 0] = torch.eye(5)
        assert classifier.bias is not None
        classifier.bias.zero_()
    return model, classifier


IDS = torch.arange(60) % 4  # id 4 exists in the classifier but has no Gaussian


@pytest.mark.parametrize("hull", [rule.value for rule in HullRule])
def test_removing_and_keeping_are_complements(hull: str) -> None:
    parts = []
    for mode in ("remove", "keep"):
        model, classifier = make_model(IDS)
        whole = model.get_xyz.detach().clone()
        counts = edit_objects(model, classifier, EditParams(select_obj_id=[2], mode=mode, hull=hull))
        assert counts["left"] == model.num_gaussians
        parts.append(model.get_xyz.detach())
    assert sorted(map(tuple, torch.cat(parts).tolist())) == sorted(map(tuple, whole.tolist()))


def test_every_tensor_follows_and_other_rows_keep_their_bits() -> None:
    model, classifier = make_model(IDS)
    before = {name: value.detach().clone() for name, value in model.params.items()}
    edit_objects(model, classifier, EditParams(select_obj_id=[1, 3], hull="none"))
    expected = (IDS == 0) | (IDS == 2)
    for name, value in model.params.items():
        assert torch.equal(value.detach(), before[name][expected]), name
    assert all(len(value) == int(expected.sum()) for value in model.state.values())


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (EditParams(), "required"),
        (EditParams(select_obj_id=[7]), "id 7 is not in the model"),
        (EditParams(select_obj_id=[4]), "no Gaussian"),
    ],
)
def test_errors_list_the_ids_that_occur(edit: EditParams, words: str) -> None:
    model, classifier = make_model(IDS)
    with pytest.raises(UserError, match=words) as caught:
        edit_objects(model, classifier, edit)
    assert "0 (15), 1 (15), 2 (15), 3 (15)" in str(caught.value)
    assert model.num_gaussians == 60


def test_an_empty_scene_is_refused() -> None:
    model, classifier = make_model(IDS)
    with pytest.raises(UserError, match="nothing would be left"):
        edit_objects(model, classifier, EditParams(select_obj_id=[0, 1, 2, 3]))
