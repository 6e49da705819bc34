"""clean_objects.py: a finished run whose Gaussians draw back from the pixels of other objects."""

import json
import signal
from pathlib import Path

import pytest
import torch

import clean_objects
import render
import segment_splat
from gradiseg.classifier import IdentityClassifier, conv_of
from gradiseg.finished.cleaning import ignored_label, moved, schedule_of
from gradiseg.training import Training
from scene.ply import export_3dgs_ply
from scripts import eval_extracted
from tests.disc_scene import DEPTH, DISCS, disc_model, write_scene
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two discs; thirty of the red one's reach over the left rim of the blue one."""
    folder, blue = tmp_path_factory.mktemp("discs"), DISCS["blue disc"]
    model = disc_model()
    red = (model.get_objects[:, 0].argmax(1) == DISCS["red disc"].identity).nonzero()[:30, 0]
    params = {name: table.detach().clone() for name, table in model.params.items()}
    params["xyz"][red] = torch.tensor([blue.x - blue.radius, blue.y, DEPTH - 0.2])
    params["scaling"][red], params["opacity"][red] = -3.0, -3.0
    write_scene(folder / "scene")
    export_3dgs_ply(folder / "splat.ply", params)
    out = folder / "run"
    flags = ["-s", str(folder / "scene"), "-m", str(out), "--train_split", "--no_refine", "--quiet"]
    segment_splat.main(["--ply", str(folder / "splat.ply"), *flags])
    return out


def test_the_result_is_a_run_with_less_in_others_pixels_and_the_old_one_stays(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    out = tmp_path / "clean"
    clean_objects.main(["-m", str(run), "--out", str(out), "--steps", "30"])
    assert "Gaussians changed hands" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    record = json.loads((out / "cleaned.json").read_text())
    assert record["after"]["impurity"] < record["before"]["impurity"] and record["steps"] == 30
    render.main(["-m", str(out), "--quiet"])
    eval_extracted.main(["-m", str(out), "--quiet"])
    with pytest.raises(UserError, match="holds another run"):
        clean_objects.main(["-m", str(run), "--out", str(out), "--quiet"])


def test_a_signal_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(training: Training) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Training, "step", interrupted)
    with pytest.raises(UserError, match="Nothing was written"):
        clean_objects.main(["-m", str(run), "--out", str(tmp_path / "clean"), "--quiet"])
    assert not (tmp_path / "clean").exists()
    with pytest.raises(UserError, match="--out is required"):
        clean_objects.main(["-m", str(run), "--quiet"])


def test_cleaning_is_a_last_phase_without_repairs() -> None:
    schedule = schedule_of(10)
    assert [schedule.boundary_is_due(i) for i in range(1, 5)] == [False, True, False, True]
    assert not any(map(schedule.repair_is_due, range(11))) and not any(map(schedule.igd_is_active, range(11)))
    assert schedule.neighbours(1) == "adaptive" and schedule.opt.densify_until_iter == 0


def test_who_changed_hands() -> None:
    assert moved(torch.tensor([1, 1, 2, 3]), torch.tensor([1, 2, 2, 2])) == {"1 > 2": 1, "3 > 2": 1}


def test_the_id_that_the_run_ignored_is_ignored_again() -> None:
    conv = torch.nn.Conv2d(16, 8, 1)
    assert ignored_label([0, 3, 5], conv) == -1  # as Gaussian Grouping's: a row for every id
    state = IdentityClassifier([0, 3, 5], 8, ignore_label=0).full_state_dict()
    conv = conv_of(state["weight"], state["bias"])
    assert ignored_label([0, 3, 5], conv) == 0 and ignored_label([3, 5], conv) == -1
    with pytest.raises(UserError, match="not learned their ids 0, 4"):
        ignored_label([0, 3, 4], conv)
    assert schedule_of(10, ignore_label=0).opt.ignore_label == 0
