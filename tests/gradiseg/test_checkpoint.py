"""Checkpoints: bitwise round trip of everything, refusal of everything else."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arguments import OptimizationParams
from gradiseg import checkpoint
from gradiseg.classifier import IdentityClassifier
from gradiseg.repair.labels import TrainingLabels
from scene.gaussian_model import GaussianModel
from tests.gaussians import rows, step_randomly, trained_model
from utils.errors import UserError


def classifier_pair(ids: list[int], seed: int = 0) -> tuple[IdentityClassifier, torch.optim.Adam]:
    torch.manual_seed(seed)
    classifier = IdentityClassifier(torch.tensor(ids), 256)
    return classifier, torch.optim.Adam(classifier.parameters(), lr=5e-4)


def train(model: GaussianModel, classifier: IdentityClassifier, optimizer: torch.optim.Adam) -> list[Any]:
    """A step that depends on all state and all generators; returns what it drew."""
    step_randomly(model, torch.default_generator)
    classifier(torch.randn(5, 16)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return [random.random(), np.random.standard_normal(), torch.rand(1).item()]


def write(path: Path) -> tuple[GaussianModel, IdentityClassifier, torch.optim.Adam]:
    model, (classifier, optimizer) = trained_model(6), classifier_pair([0, 3, 7])
    np.random.standard_normal()  # leaves a cached second normal in NumPy's generator
    train(model, classifier, optimizer)
    labels = TrainingLabels(classifier)
    labels.load_state_dict({5: torch.ones(2, 3, dtype=torch.int16)})
    checkpoint.save(path, 123, model, classifier, optimizer, labels, camera_order=[4, 0, 2])
    return model, classifier, optimizer


def test_resuming_gives_the_bits_of_going_on(tmp_path: Path) -> None:
    path = tmp_path / "chkpnt123.pth"
    model, classifier, optimizer = write(path)
    drawn = train(model, classifier, optimizer)

    other, (other_classifier, other_optimizer) = GaussianModel(3), classifier_pair([0, 3, 7], seed=9)
    contents = checkpoint.load(path)
    labels = TrainingLabels(other_classifier)
    restored = checkpoint.restore(
        contents, other, OptimizationParams(), other_classifier, other_optimizer, labels
    )
    assert restored == (123, [4, 0, 2])
    assert [(uid, int(repaired.sum())) for uid, repaired in labels.state_dict().items()] == [(5, 6)]
    assert train(other, other_classifier, other_optimizer) == drawn
    after = rows(other)
    for name, value in rows(model).items():
        assert torch.equal(after[name], value), name
    for name, value in classifier.state_dict().items():
        assert torch.equal(other_classifier.state_dict()[name], value), name
    moments = [optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]]
    for index, entries in moments[0].items():
        assert all(torch.equal(moments[1][index][key], value) for key, value in entries.items())


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "chkpnt123.pth"
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=r"chkpnt123\.pth: not a readable checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(3)}, "not a GradiSeg checkpoint"),
        (torch.zeros(3), "not a GradiSeg checkpoint"),
        ({"format": checkpoint.FORMAT, "version": 99}, "version 99"),
        ({"format": checkpoint.FORMAT, "version": checkpoint.VERSION}, "lacks iteration"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=message):
        checkpoint.load(tmp_path / "other.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "chkpnt1.pth")


def test_other_ids_are_refused_although_their_number_fits(tmp_path: Path) -> None:
    write(tmp_path / "chkpnt123.pth")
    contents, (classifier, optimizer) = (
        checkpoint.load(tmp_path / "chkpnt123.pth"),
        classifier_pair([0, 3, 8]),
    )
    with pytest.raises(UserError, match="other ids"):
        labels = TrainingLabels(classifier)
        checkpoint.restore(contents, GaussianModel(3), OptimizationParams(), classifier, optimizer, labels)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chkpnt123.pth"
    write(path)
    content = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path)
    assert path.read_bytes() == content and [p.name for p in tmp_path.iterdir()] == ["chkpnt123.pth"]
