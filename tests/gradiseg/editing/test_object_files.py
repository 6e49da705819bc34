"""Ids in files: what is written is read, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gradiseg.editing.object_files import ids_beside, names_beside, read_ids, write_ids
from utils.errors import UserError


def test_ids_come_back(tmp_path: Path) -> None:
    ids = torch.tensor([0, 3, 65535, 3])
    write_ids(tmp_path / "a.npy", ids)
    assert torch.equal(read_ids(tmp_path / "a.npy"), ids)
    assert ids_beside(Path("b/a.splat")) == Path("b/a.ids.npy")
    assert names_beside(Path("b/a.splat")) == Path("b/a.objects.json")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), int), np.array([0.5]), np.array([-1]), np.array([65536]), np.array([{}])]
)
def test_other_arrays_are_an_error(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=r"a\.npy: "):
        read_ids(tmp_path / "a.npy")


@pytest.mark.parametrize("content", [b"", b"ids", b"\x93NUMPY"])
def test_other_files_are_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match="no ids in NumPy's format"):
        read_ids(tmp_path / "a.npy")


def test_a_forged_size_allocates_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3, np.uint16))
    data = (tmp_path / "a.npy").read_bytes()
    forged = data.replace(b"(3,), }" + b" " * 12, b"(3000000000000,), }")
    assert forged != data
    (tmp_path / "a.npy").write_bytes(forged)
    with pytest.raises(UserError, match="no ids"):
        read_ids(tmp_path / "a.npy")
