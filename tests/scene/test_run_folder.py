"""Where things of a run lie, what belongs to it, and that nothing else is ever touched."""

import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from scene.run_folder import RunFolder
from utils.errors import UserError

# Files of a run after every command, and of people who keep their notes there.
OWN = (
    "cfg_args",
    "cameras.json",
    "input.ply",
    "events.out.tfevents.1.host.2.0",
    "training_log.json",
    "training_summary.json",
    "chkpnt7.pth",
    "point_cloud/iteration_7/point_cloud.ply",
    "point_cloud/iteration_7/classifier.pth",
    "point_cloud/iteration_7/identity_colors.npz",
    "train/ours_7/renders/00000.png",
    "test/ours_7/gt/00000.png",
    "test/ours_7_text/test_mask/0/a cup.png",
    "test/ours_7_text/ids.json",
    "point_cloud_object_removal/iteration_7/edit.json",
    "train/ours_object_removal/iteration_7/renders/00000.png",
    "results.json",
    "eval_lerf_mask.json",
    "eval_lerf_mask.md",
    "eval_text.json",
    "eval_text.md",
    "exports/scene.splat",
    "scores.json",
)
FOREIGN = (
    "notes.txt",
    "log.txt",
    "convert.json",
    "test/mine.png",
    "images/a.png",
    ".hidden",
    "results/a.json",
)


def fill(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def temporaries() -> tuple[str, ...]:
    """What `utils.files` leaves when it is killed."""
    name = f".{uuid.uuid4().hex[:12]}"
    places = ("", "point_cloud/iteration_7/", "test/ours_7/renders/")
    kinds = (".tmp.png", ".tmp/a.png", ".old/a")
    return tuple(f"{place}{name}{kind}" for place in places for kind in kinds)


def test_overwriting_clears_all_of_the_old_run_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path, OWN + FOREIGN + temporaries())
    RunFolder.for_training(tmp_path, overwrite=True).begin(overwrite=True)
    assert files(tmp_path) == set(FOREIGN)
    assert not (tmp_path / "train").exists() and not (tmp_path / "point_cloud").exists()
    RunFolder.for_training(tmp_path)  # free for another run


def test_resuming_clears_what_a_kill_left_and_the_word_that_the_run_is_finished(tmp_path: Path) -> None:
    fill(tmp_path, OWN + FOREIGN + temporaries())
    folder = RunFolder.for_training(tmp_path, resume=True)
    assert folder.finished
    folder.begin(overwrite=False)
    assert files(tmp_path) == {*OWN, *FOREIGN} - {"training_summary.json"}
    assert not folder.finished


@pytest.mark.parametrize("name", OWN)
def test_a_folder_that_holds_any_part_of_a_run_is_refused_unless_told(tmp_path: Path, name: str) -> None:
    fill(tmp_path, (name,))
    with pytest.raises(UserError, match=r"holds another run.*--overwrite.*--resume"):
        RunFolder.for_training(tmp_path)
    for told in ({"overwrite": True}, {"resume": True}):
        assert RunFolder.for_training(tmp_path, **told).path == tmp_path
    assert files(tmp_path) == {name}


def test_a_folder_without_a_run_is_free(tmp_path: Path) -> None:
    fill(tmp_path, FOREIGN)
    RunFolder.for_training(tmp_path)
    RunFolder.for_training(tmp_path / "new" / "run").begin(overwrite=False)
    assert not (tmp_path / "new").exists()


def test_a_path_that_cannot_hold_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not a folder"):
        RunFolder.for_training(tmp_path / "file")
    with pytest.raises(UserError, match="-m"):
        RunFolder.for_training("")
    with pytest.raises(UserError, match="exclude"):
        RunFolder.for_training(tmp_path, overwrite=True, resume=True)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(UserError, match="1 MB free"):
        RunFolder.for_training(tmp_path / "new" / "run")


def test_the_latest_of_everything_is_the_largest_number(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.latest_edited() is None and folder.rendered("test") == {}
    with pytest.raises(UserError, match=r"no chkpntN\.pth"):
        folder.latest_checkpoint()
    with pytest.raises(UserError, match="no iteration_N folder"):
        folder.latest_saved()
    for iteration in (900, 30_000, 7000):
        paths = [folder.checkpoint(iteration), folder.ply(iteration), folder.edit_record(iteration)]
        paths.append(folder.renders("test", iteration) / "renders" / "00000.png")
        for path in paths:
            fill(path.parent, (path.name,))
    # cut off before anything was in them, or of another kind
    for path in (folder.saved(40_000), folder.renders("test", 40_000), folder.text("test", 50_000)):
        path.mkdir(parents=True)
    fill(folder.saved(35_000), ("votes.npz", "classifier.pth"))
    fill(tmp_path, ("chkpntx.pth", "chkpnt99999.pth.old", "point_cloud/other_99999/point_cloud.ply"))
    assert folder.latest_checkpoint() == tmp_path / "chkpnt30000.pth"
    assert folder.latest_saved() == folder.latest_edited() == 30_000
    assert set(folder.rendered("test")) == {900, 7000, 30_000}
    assert folder.rendered("train") == {}


def test_paths_are_gaussian_groupings(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    named = {
        folder.cfg_args: "cfg_args",
        folder.cameras: "cameras.json",
        folder.input_points: "input.ply",
        folder.checkpoint(7): "chkpnt7.pth",
        folder.ply(7): "point_cloud/iteration_7/point_cloud.ply",
        folder.classifier(7): "point_cloud/iteration_7/classifier.pth",
        folder.renders("test", 7): "test/ours_7",
        folder.text_masks("test", 7): "test/ours_7_text/test_mask",
        folder.edited(7): "point_cloud_object_removal/iteration_7",
        folder.edited_renders("train", 7): "train/ours_object_removal/iteration_7/renders",
    }
    assert [path.relative_to(tmp_path).as_posix() for path in named] == list(named.values())
