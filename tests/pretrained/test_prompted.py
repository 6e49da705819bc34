"""A network that comes as a TorchScript file: what it is given, and what it must give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pretrained.prompted import load_torchscript
from tests.tiny_models import AlikeColours, saved
from utils.errors import UserError

CPU = torch.device("cpu")


class TooSmall(nn.Module):
    """Half of the picture."""

    def forward(self, image: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        return image[0, ::2, ::2]


class WithoutLabels(nn.Module):
    """Another order of inputs."""

    def forward(self, image: Tensor, points: Tensor) -> Tensor:
        return image[0]


@pytest.fixture
def picture() -> np.ndarray:
    """Red at the left, green, and blue at the right."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :10, 0] = image[:, 10:20, 1] = image[:, 20:, 2] = 200
    return image


def test_points_and_labels_reach_the_network(picture: np.ndarray, tmp_path: Path) -> None:
    segment = load_torchscript(saved(AlikeColours(), tmp_path / "net.pt"), CPU)
    points = np.array([[3.5, 15.0], [25.5, 2.5], [24.5, 12.5]])
    mask = segment(picture, points, np.array([True, True, False]))
    assert mask.dtype == bool and mask.shape == (20, 30)
    assert mask[:, :10].all() and not mask[:, 10:].any()
    assert segment(picture, points, np.ones(3, bool))[:, 20:].all()


@pytest.mark.parametrize(
    ("module", "message"), [(TooSmall(), r"\(10, 15\) for \(20, 30\)"), (WithoutLabels(), "failed")]
)
def test_a_network_with_another_contract_is_told_it(
    module: nn.Module, message: str, picture: np.ndarray, tmp_path: Path
) -> None:
    segment = load_torchscript(saved(module, tmp_path / "net.pt"), CPU)
    with pytest.raises(UserError, match=message + r".*labels \(K,\) int64"):
        segment(picture, np.ones((1, 2)), np.ones(1, bool))


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"no network")
    for path in (tmp_path / "net.pt", tmp_path / "none.pt"):
        with pytest.raises(UserError, match=r"--weights .*torch\.jit\.save"):
            load_torchscript(str(path), CPU)
