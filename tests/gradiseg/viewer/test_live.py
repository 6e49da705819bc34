"""A training that shows itself: what is lent is the training as it is, and costs it no bit."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from gradiseg.objective import Losses
from gradiseg.training import Training
from gradiseg.viewer import live, server
from gradiseg.viewer.following import progress_of, restored
from scene.run_folder import RunFolder
from tests.disc_scene import CLASSES, write_scene
from utils.errors import UserError

Lend = Callable[[Training, Losses], None]
FLAGS = ("-r", "8", "--iterations", "12", "--threads", "1", "--quiet", "--train_split")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two discs."""
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder)
    return folder


def trained(scene: Path, run: Path, *flags: str) -> bytes:
    """The Gaussians that a training of the discs saves."""
    train.main(["-s", str(scene), "-m", str(run), "--num_classes", str(CLASSES), *FLAGS, *flags])
    return RunFolder(run).ply(12).read_bytes()


def onlooker(states: list[dict[str, Any]]) -> Any:
    """In the place of the process: a thread that asks all the time."""

    def look(pipe: Connection) -> None:
        try:
            while True:
                states.append(live.asked(pipe))
        except (EOFError, OSError):
            pipe.close()

    @contextmanager
    def shown(*_: object) -> Iterator[Lend]:
        ours, theirs = Pipe()
        thread = threading.Thread(target=look, args=(theirs,))
        thread.start()
        lender = live.Lender(ours)
        yield lender.lend
        lender.close()
        thread.join()

    return shown


def test_a_training_that_is_looked_at_keeps_its_bits(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, Any]] = []
    monkeypatch.setattr(live, "shown", onlooker(states))
    monkeypatch.setattr(live, "check_viewer", lambda port: None)
    assert trained(scene, tmp_path / "alone") == trained(scene, tmp_path / "looked_at", "--viewer")
    assert states and [state["iteration"] for state in states] == sorted(
        {state["iteration"] for state in states}
    )
    gaussians, classifier = restored(states[-1], CLASSES, torch.device("cpu"), np.zeros(3))
    assert gaussians.num_gaussians == states[-1]["num_gaussians"] and classifier.out_channels == CLASSES
    assert progress_of(states[-1], 12).startswith(
        f"training: iteration {states[-1]['iteration']} of 12, loss"
    )


def test_a_viewer_that_ends_is_no_end_of_the_training(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def gone(*_: object) -> Iterator[Lend]:
        ours, theirs = Pipe()
        theirs.close()
        yield live.Lender(ours).lend

    monkeypatch.setattr(live, "shown", gone)
    monkeypatch.setattr(live, "check_viewer", lambda port: None)
    assert trained(scene, tmp_path / "run", "--viewer")
    assert [record.message for record in caplog.records if "viewer" in record.message] == [
        "The viewer has ended; the training goes on without it."
    ]


def test_what_lacks_is_said_before_anything_is_written(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, monkeypatch.context() as patch:
        patch.setattr(live, "require_viser", lambda what: None)
        port = str(taken.getsockname()[1])
        with pytest.raises(UserError, match=rf"127.0.0.1:{port} cannot be had.*Choose another --viewer"):
            trained(scene, tmp_path / "run", "--viewer", port)
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--viewer needs viser: pip install"):
        trained(scene, tmp_path / "run", "--viewer")
    assert not (tmp_path / "run").exists()
