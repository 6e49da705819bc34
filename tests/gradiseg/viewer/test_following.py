"""Following a training: what its checkpoints hold is shown, until somebody edits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train
import view
from gradiseg.editing.operations import Rename
from gradiseg.viewer.following import Follower, last_entry, progress_of
from gradiseg.viewer.workspace import Workspace
from scene.run_folder import RunFolder
from tests.disc_scene import write_scene

FLAGS = ("-r", "8", "--iterations", "8", "--checkpoint_interval", "4", "--threads", "1", "--quiet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight iterations with checkpoints of the fourth and the eighth."""
    scene, run = (tmp_path_factory.mktemp(name) for name in ("scene", "run"))
    write_scene(scene)
    train.main(["-s", str(scene), "-m", str(run), "--overwrite", "--train_split", *FLAGS])
    RunFolder(run).training_summary.unlink()  # so that it is still going on
    return run


def at_first_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Opened when the second checkpoint was not there yet."""
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "latest_checkpoint", lambda self: self.checkpoint(4))
        patch.setattr(Follower, "start", lambda self: None)
        return view.open_workspace(["-m", str(run)])


def test_the_newest_checkpoint_is_shown(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = at_first_checkpoint(trained, monkeypatch)
    before = workspace.document.model
    assert workspace.run.iteration == 4 and before.count > 0 and workspace.views
    follower = Follower(workspace, 8)
    assert follower.look() and not follower.look()
    assert workspace.run.iteration == 8 and not workspace.document.model.same_as(before)
    assert workspace.document.surroundings.told == workspace._progressed


def test_what_was_edited_stays(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = at_first_checkpoint(trained, monkeypatch)
    workspace.apply({"operation": "rename", "id": 3, "name": "disc"})
    assert not Follower(workspace, 8).look() and workspace.run.iteration == 4


def test_an_edit_that_begins_while_a_state_arrives_stays(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = at_first_checkpoint(trained, monkeypatch)
    monkeypatch.setattr(Workspace, "is_editing", False)  # as it was a moment ago
    edit = workspace._edit
    with edit():
        assert not Follower(workspace, 8).look()

    @contextmanager
    def after_another() -> Iterator[None]:
        with edit():
            workspace.document.apply(Rename(id=3, name="disc"))
            yield

    monkeypatch.setattr(workspace, "_edit", after_another)
    assert not Follower(workspace, 8).look()
    assert workspace.document.operations and workspace.run.iteration == 4


def test_progress_is_what_the_log_says(trained: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert progress_of(last_entry(folder), 30) == "training: no log yet"
    folder.training_log.write_text('[{"iteration": 10, "loss": 0.25, "num_gaussians": 1234}]')
    expected = "training: iteration 10 of 30, loss 0.2500, 1,234 Gaussians"
    assert progress_of(last_entry(folder), 30) == expected
    assert last_entry(RunFolder(trained)) is None  # eight iterations are before its first entry
