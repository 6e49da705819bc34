"""Checkpoint files: what was saved comes back, everything else is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gradiseg import checkpoint
from utils.errors import UserError
from utils.general import random_state

STATE: dict[str, Any] = {name: {} for name in checkpoint.SECTIONS} | {
    "iteration": 123,
    "model": {"params": {"xyz": torch.rand(50, 3)}},
    "labels": {5: torch.ones(2, 3, dtype=torch.int16)},
    "camera_order": [4, 0, 2],
    "rng": random_state(),
}


def write(path: Path) -> None:
    """A checkpoint."""
    checkpoint.save(path, STATE)


def test_a_state_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "chkpnt123.pth")
    state = checkpoint.load(tmp_path / "chkpnt123.pth")
    assert (state["iteration"], state["camera_order"]) == (123, [4, 0, 2])
    assert torch.equal(state["model"]["params"]["xyz"], STATE["model"]["params"]["xyz"])
    assert torch.equal(state["labels"][5], STATE["labels"][5])
    assert state["rng"]["python"] == STATE["rng"]["python"]


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
