"""Losses: the largest difference in what is drawn, whatever numbers say it."""

import math

import pytest
import torch

from scene.formats.losses import losses
from tests.gaussians import random_params


def test_the_same_rotation_written_otherwise_is_no_loss() -> None:
    params = random_params(20)
    back = {**params, "rotation": -2.0 * params["rotation"]}
    assert losses(params, back).degrees < 1e-5


def test_each_difference_is_found() -> None:
    params = random_params(20)
    back = {name: tensor.clone() for name, tensor in params.items()}
    params["rotation"][3] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    back["rotation"][3] = torch.tensor([math.cos(0.05), math.sin(0.05), 0.0, 0.0])
    back["xyz"][4] += torch.tensor([3.0, 0.0, 4.0])
    back["scaling"][5, 1] += math.log(1.5)
    back["obj_dc"] *= 0
    back["f_rest"] = back["f_rest"][:, :8]
    lost = losses(params, back)
    assert lost.degrees == pytest.approx(math.degrees(0.1), rel=1e-5)
    assert lost.centre == pytest.approx(5.0, rel=1e-5) and lost.scale == pytest.approx(0.5, rel=1e-5)
    assert lost.degree_left == 2 and lost.identities
    assert "SH of degree 3 becomes 2" in str(lost) and "no identity encodings" in str(lost)


def test_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="19 Gaussians"):
        losses(random_params(20), random_params(19))
