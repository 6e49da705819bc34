"""`.splat` files: rows as the format has them, and what comes back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scene.formats.losses import losses
from scene.formats.splat import read_splat, write_splat
from tests.gaussians import random_params
from utils.errors import UserError
from utils.sh import RGB2SH


def test_the_bytes_of_a_row(tmp_path: Path) -> None:
    params = {
        "xyz": torch.tensor([[1.0, -2.0, 3.0]]),
        "f_dc": RGB2SH(torch.tensor([[[1.0, 0.5, -1.0]]])),
        "opacity": torch.tensor([[0.0]]),
        "scaling": torch.tensor([[0.25, 0.5, 2.0]]).log(),
        "rotation": torch.tensor([[0.0, 0.0, 3.0, -3.0]]),
    }
    write_splat(tmp_path / "a.splat", params)
    data = (tmp_path / "a.splat").read_bytes()
    np.testing.assert_allclose(np.frombuffer(data[:24], "<f4"), [1, -2, 3, 0.25, 0.5, 2], rtol=1e-6)
    assert list(data[24:]) == [255, 128, 0, 128, 128, 128, 219, 37]  # 128 + 128 / sqrt(2) = 218.5


def test_what_the_format_loses_is_within_its_steps(tmp_path: Path) -> None:
    params = random_params(500)
    params["f_dc"] = RGB2SH(torch.rand(500, 1, 3))
    write_splat(tmp_path / "a.splat", params)
    lost = losses(params, read_splat(tmp_path / "a.splat"))
    assert lost.centre == 0 and lost.scale < 1e-5
    assert lost.opacity < 0.5 / 255 + 1e-6 and lost.colour < 0.5 / 255 + 1e-6
    assert lost.degrees < 1.5
    assert (lost.degree, lost.degree_left, lost.identities) == (3, 0, True)


@given(st.binary(max_size=320).map(lambda data: data[: len(data) // 32 * 32]))
def test_any_bytes_become_finite_gaussians_and_the_same_bytes_again(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("splat") / "a.splat"
    path.write_bytes(data)
    params = read_splat(path)
    assert all(tensor.isfinite().all() for tensor in params.values())
    write_splat(path, params)
    again = read_splat(path)
    for name in ("xyz", "f_dc", "opacity"):
        assert torch.equal(params[name], again[name])
    assert losses(params, again).scale < 1e-4


def test_a_cut_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.splat").write_bytes(b"0" * 33)
    with pytest.raises(UserError, match=r"a\.splat: 33 bytes"):
        read_splat(tmp_path / "a.splat")
