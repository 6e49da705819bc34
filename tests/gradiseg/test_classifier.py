"""The dense classifier and its full 1x1 convolution are one function."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gradiseg.classifier import (
    IGNORED,
    IdentityClassifier,
    class_logits,
    classify,
    identify,
    load_conv,
    map_encodings,
    occurring_rows,
)
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


def test_full_state_is_that_of_a_convolution() -> None:
    dense = classifier()
    conv = torch.nn.Conv2d(16, 256, 1)
    found = conv.load_state_dict(dense.full_state_dict())
    assert not found.missing_keys and not found.unexpected_keys
    rows = occurring_rows(conv)
    assert torch.equal(rows.weight, dense.weight) and torch.equal(rows.bias, dense.bias)


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
def test_classifying_equals_the_whole_softmax_by_any_chunks(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradiseg.classifier.CHUNK", chunk)
    torch.manual_seed(0)
    conv, features = torch.nn.Conv2d(16, 9, 1), torch.randn(16, 5, 8)
    expected = conv(features[None])[0].softmax(0)  # (9, 5, 8)
    found = classify(map_encodings(features), conv, [7, 2])
    torch.testing.assert_close(found.probabilities, expected[[7, 2]].permute(1, 2, 0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.confidence, expected.amax(0), rtol=1e-5, atol=1e-7)
    assert torch.equal(found.ids, expected.argmax(0))
    assert torch.equal(identify(map_encodings(features), conv), found.ids)


def test_nothing_to_classify() -> None:
    conv = torch.nn.Conv2d(16, 9, 1)
    assert identify(torch.zeros(0, 16), conv).shape == (0,)
    assert classify(torch.zeros(0, 16), conv, [1, 2]).probabilities.shape == (0, 2)


def test_rows_that_never_occurred_decide_nothing() -> None:
    dense = classifier()
    with torch.no_grad():
        dense.weight.mul_(10.0)
    conv = torch.nn.Conv2d(16, 256, 1)
    conv.load_state_dict(dense.full_state_dict())
    assert occurring_rows(conv).ids.tolist() == IDS
    encodings = 3.0 * torch.randn(500, 16)
    state = dense.full_state_dict()
    logits = class_logits(encodings, state["weight"].flatten(1), state["bias"])  # (500, 256)
    found = classify(encodings, conv, [3, 5])  # of logits up to 40, which products of other shapes round
    assert torch.equal(found.ids, logits.argmax(1))
    torch.testing.assert_close(found.probabilities[:, 0], logits.softmax(1)[:, 3], rtol=1e-4, atol=0)
    assert not found.probabilities[:, 1].any()


def test_a_classifier_of_gaussian_grouping_keeps_all_its_rows() -> None:
    conv = torch.nn.Conv2d(16, 9, 1)
    with torch.no_grad():
        conv.weight[4] = 0.0
    assert occurring_rows(conv).ids.tolist() == list(range(9))
