"""The dense classifier and its full 1x1 convolution are one function."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gradiseg.classifier import IGNORED, IdentityClassifier, identity_of_gaussians, load_conv
from utils.errors import UserError

IDS = [0, 3, 7, 200]


def classifier(**changes: Any) -> IdentityClassifier:
    torch.manual_seed(0)
    return IdentityClassifier(torch.tensor(IDS), num_classes=256, **changes)


def test_full_softmax_equals_the_dense_one(tmp_path: Path) -> None:
    dense = classifier()
    with torch.no_grad():
        dense.weight.mul_(10.0)  # logits as wide as trained ones
    torch.save(dense.full_state_dict(), tmp_path / "classifier.pth")
    conv = load_conv(tmp_path / "classifier.pth")
    features = 3.0 * torch.randn(16, 6, 5)
    full = conv(features[None])[0].softmax(dim=0)  # (256, 6, 5)
    expected = dense(features.permute(1, 2, 0)).softmax(dim=-1)  # (6, 5, 4)
    torch.testing.assert_close(full[IDS].permute(1, 2, 0), expected, rtol=1e-5, atol=1e-7)
    absent = [i for i in range(256) if i not in IDS]
    assert float(full[absent].max()) < 1e-12
    assert not any(parameter.requires_grad for parameter in conv.parameters())


def test_full_state_round_trip_is_bitwise() -> None:
    dense, other = classifier(), classifier()
    torch.nn.init.normal_(dense.weight)
    other.load_full(dense.full_state_dict())
    assert torch.equal(other.weight, dense.weight) and torch.equal(other.bias, dense.bias)
    full = torch.nn.Conv2d(16, 256, 1).load_state_dict(dense.full_state_dict())
    assert not full.missing_keys and not full.unexpected_keys


def test_start_has_the_range_of_conv2d() -> None:
    wide = IdentityClassifier(torch.arange(4000), 4000)
    for parameter in (wide.weight, wide.bias):
        assert 0.245 < parameter.abs().max().item() <= 0.25
        assert abs(parameter.mean().item()) < 0.01


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_are_ranks_of_the_ids(dtype: torch.dtype) -> None:
    id_map = torch.tensor([[0, 200], [7, 3], [3, 3]])
    labels = classifier().labels(id_map.to(dtype))
    assert labels.tolist() == [[0, 3], [2, 1], [1, 1]]
    assert torch.equal(classifier().class_ids[labels.long()], id_map)


@pytest.mark.parametrize("unknown", [5, 255, 256, -1])
def test_an_unknown_id_is_named(unknown: int) -> None:
    with pytest.raises(UserError, match=f"id {unknown} "):
        classifier().labels(torch.tensor([[0, unknown]]))


def test_the_ignored_id_has_no_row() -> None:
    dense = classifier(ignore_label=0)
    assert dense.class_ids.tolist() == [3, 7, 200]
    assert dense.labels(torch.tensor([[0, 3]])).tolist() == [[IGNORED, 0]]
    assert float(dense.full_state_dict()["bias"][0]) == -100.0


def test_ids_beyond_the_classes_are_refused() -> None:
    with pytest.raises(UserError, match="--num_classes 201"):
        IdentityClassifier(torch.tensor(IDS), num_classes=200)
    with pytest.raises(UserError, match="no id"):
        IdentityClassifier(torch.tensor([0]), num_classes=10, ignore_label=0)
    with pytest.raises(UserError, match="100 classes"):
        classifier().load_full(torch.nn.Conv2d(16, 100, 1).state_dict())


@pytest.mark.parametrize("content", [{"weight": torch.zeros(4, 16)}, {"bias": torch.zeros(4)}, [1], None])
def test_other_files_are_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "classifier.pth"
    with pytest.raises(UserError, match="no classifier"):
        load_conv(path)
    torch.save(content, path)
    with pytest.raises(UserError, match="not the state dict"):
        load_conv(path)


def test_reading_draws_no_random_numbers(tmp_path: Path) -> None:
    torch.save(classifier().full_state_dict(), tmp_path / "classifier.pth")
    before = torch.get_rng_state()
    load_conv(tmp_path / "classifier.pth")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_identity_of_gaussians_does_not_depend_on_the_chunk(chunk: int) -> None:
    conv, obj_dc = torch.nn.Conv2d(16, 9, 1), torch.randn(40, 1, 16)
    expected = conv(obj_dc.permute(2, 0, 1)[None])[0].argmax(dim=0).squeeze(1)
    assert torch.equal(identity_of_gaussians(conv, obj_dc, chunk), expected)
    assert identity_of_gaussians(conv, obj_dc[:0], chunk).shape == (0,)
