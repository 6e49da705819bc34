"""train.py end to end on the demo at a quarter of its size, all phases within 120 iterations."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plyfile import PlyData

import train
from arguments import parse
from gradiseg import checkpoint
from gradiseg.igd import IdentityGradientDensification
from gradiseg.schedule import Schedule
from gradiseg.training import Training
from scene.run_folder import RunFolder
from scripts import diagnose_igd
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "data" / "demo"
LAST = 120
# 3DGS until 50 with opacity resets, repairs from 40, IGD in (50, 90], LA-KNN from 80.
POINTS = 858  # of the demo
SCHEDULE = {
    "iterations": LAST,
    "position_lr_max_steps": LAST,
    "densify_from_iter": 5,
    "densify_until_iter": 50,
    "densification_interval": 10,
    "opacity_reset_interval": 20,
    "igd_from_iter": 50,
    "igd_until_iter": 90,
    "igd_interval": 10,
    "la_knn_from_iter": 80,
    "repair_from_iter": 40,
    "repair_interval": 20,
    "reg3d_sample_size": 200,
}
PLY_COLUMNS = [
    *("x", "y", "z", "nx", "ny", "nz"),
    *(f"f_dc_{i}" for i in range(3)),
    *(f"f_rest_{i}" for i in range(45)),
    "opacity",
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
    *(f"obj_dc_{i}" for i in range(16)),
]


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    """train.py sets the number of threads of the process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# The same in a process of its own.
EVERY_DEGREE = """
import functools, sys, train
train.Schedule = functools.partial(train.Schedule, sh_interval=30)
train.main(sys.argv[1:])
"""


@pytest.fixture(scope="module", autouse=True)
def every_degree() -> Iterator[None]:
    """All degrees of spherical harmonics within these few iterations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Schedule", partial(Schedule, sh_interval=30))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The schedule as a JSON file."""
    path = tmp_path_factory.mktemp("config") / "short.json"
    path.write_text(json.dumps(SCHEDULE))
    return path


def arguments(folder: Path, config: Path, *flags: object) -> list[str]:
    """A training command of the small demo on one thread, which is fastest at this size."""
    fixed = ["-s", DEMO, "-m", folder, "-r", 4, "--train_split", "--quiet", "--config_file", config]
    threads = [] if "--threads" in flags else ["--threads", 1]
    return [str(argument) for argument in [*fixed, *threads, *flags]]


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    train.main(arguments(folder, config, "--save_iterations", 60, "--checkpoint_iterations", 60))
    return folder


def result(folder: Path, iteration: int = LAST) -> dict[str, bytes]:
    """What a run computes, as bytes."""
    saved = folder / "point_cloud" / f"iteration_{iteration}"
    files = [saved / "point_cloud.ply", saved / "classifier.pth", folder / "training_log.json"]
    return {path.name: path.read_bytes() for path in files}


def read_log(folder: Path) -> list[dict[str, Any]]:
    """training_log.json."""
    return json.loads((folder / "training_log.json").read_text())


def run_as_script(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """`python train.py ...` in this process; the exit status, None for success."""
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    try:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    except SystemExit as end:
        return end.code
    return None


def interrupt_during(iteration: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal arrives while `iteration` is computed."""
    step = Training.step

    def interrupted_step(training: Training) -> Any:
        if training.iteration == iteration - 1:
            signal.raise_signal(number)
        return step(training)

    monkeypatch.setattr(Training, "step", interrupted_step)


# What a run leaves.


def test_a_run_writes_what_the_contract_names(finished: Path) -> None:
    for iteration in (60, LAST):
        saved = finished / "point_cloud" / f"iteration_{iteration}"
        ply = PlyData.read(saved / "point_cloud.ply")["vertex"]
        assert [column.name for column in ply.properties] == PLY_COLUMNS
        assert all(column.val_dtype == "f4" for column in ply.properties)
        assert all(np.isfinite(ply[name]).all() for name in PLY_COLUMNS)
        state = torch.load(saved / "classifier.pth", weights_only=True)
        conv = torch.nn.Conv2d(16, 256, 1)
        conv.load_state_dict(state)
    names = {path.name for path in finished.iterdir() if "tfevents" not in path.name}
    wanted = {"cfg_args", "cameras.json", "input.ply", "point_cloud", "chkpnt60.pth"}
    assert names == wanted | {"training_log.json", "training_summary.json"}
    assert len(list(finished.glob("events.out.tfevents*"))) == 1
    assert len(json.loads((finished / "cameras.json").read_text())) == 42
    assert not list(finished.rglob("*.tmp*")), "a temporary file was left"


def test_the_run_passes_through_its_phases(finished: Path) -> None:
    log = {entry["iteration"]: entry for entry in read_log(finished)}
    assert list(log) == list(range(10, LAST + 1, 10))
    # A densification acts at the start of the next iteration, so an entry shows those before it.
    counts = {iteration: entry["num_gaussians"] for iteration, entry in log.items()}
    assert counts[10] == POINTS < counts[20] < counts[30]  # 3DGS
    assert counts[50] == counts[60] < counts[70] < counts[80] < counts[90] < counts[100]  # IGD
    assert counts[100] == counts[LAST]
    terms = [iteration for iteration, entry in log.items() if entry["l_3d"] is not None]
    assert terms == [10, 20, 30, 40, 50, 90, 100, 110, 120]  # none between the two kinds of neighbours
    assert log[30]["l_rgb"] > log[20]["l_rgb"]  # an opacity reset
    assert log[LAST]["l_rgb"] < log[10]["l_rgb"]
    assert log[120]["l_2d"] < 0.8 * log[10]["l_2d"]
    assert [iteration for iteration, entry in log.items() if entry["l_boundary"] is not None] == [100, 120]
    for entry in log.values():
        terms = [entry[name] for name in ("l_rgb", "l_2d", "l_3d", "l_boundary") if entry[name] is not None]
        assert entry["loss"] == pytest.approx(sum(terms), rel=1e-5)
    summary = json.loads((finished / "training_summary.json").read_text())
    assert summary["iterations"] == LAST
    assert summary["num_gaussians"] == counts[LAST]
    assert summary["config"]["igd_interval"] == 10


def test_masks_are_repaired(finished: Path) -> None:
    contents = checkpoint.load(finished / "chkpnt60.pth")
    assert len(contents["labels"]) == 36  # training views


def test_what_igd_is_about_to_split_can_be_looked_at(finished: Path, tmp_path: Path) -> None:
    flags = ["-m", str(finished), "--checkpoint", str(finished / "chkpnt60.pth"), "--out", str(tmp_path)]
    diagnose_igd.main(flags)
    record = json.loads((tmp_path / "diagnosis.json").read_text())
    assert 0 < record["chosen"] < record["gaussians"] and 0 < record["within_3_px_of_all"] < 1
    assert len(list(tmp_path.glob("*.png"))) == diagnose_igd.PICTURES
    early = tmp_path / "early.pth"
    contents = checkpoint.load(finished / "chkpnt60.pth")
    contents["model"]["state"]["identity_gradient_denom"].zero_()
    checkpoint.save(early, contents)
    with pytest.raises(UserError, match="holds no identity gradients"):
        diagnose_igd.main([*flags[:2], "--checkpoint", str(early)])


def test_the_shipped_schedule_can_be_compressed(tmp_path: Path) -> None:
    shipped = ROOT / "config" / "gradiseg" / "train.json"
    train.main(arguments(tmp_path, shipped, "--schedule_scale", 0.002, "--reg3d_sample_size", 50))
    result(tmp_path, 60)
    _, _, *groups, _ = parse(train.GROUPS, ["--config_file", str(shipped)])
    scaled = Schedule(*groups).scaled(0.002)
    assert [scaled.neighbours(i) for i in (24, 25, 30, 31)] == ["global", None, None, "adaptive"]


@pytest.mark.parametrize(("name", "splits"), [("train", True), ("baseline", False), ("no_igd", False)])
def test_only_the_configurations_with_igd_split_by_it(
    tmp_path: Path, name: str, splits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, int]] = []
    step = IdentityGradientDensification.step

    def recorded_step(*arguments: Any) -> dict[str, int]:
        reports.append(step(*arguments))
        return reports[-1]

    monkeypatch.setattr(IdentityGradientDensification, "step", recorded_step)
    flags = ["--iterations", 40, "--densify_from_iter", 5, "--densification_interval", 10]
    flags += ["--densify_until_iter", 20, "--igd_from_iter", 20, "--igd_until_iter", 40, "--igd_interval", 10]
    train.main(arguments(tmp_path, ROOT / "config" / "gradiseg" / f"{name}.json", *flags))
    counts = {entry["iteration"]: entry["num_gaussians"] for entry in read_log(tmp_path)}
    assert counts[20] > POINTS  # 3DGS densifies in all of them
    assert reports
    assert (sum(report.get("split", 0) for report in reports) > 0) == splits
    assert splits or counts[40] == counts[20]


def test_max_gaussians_is_a_cap(tmp_path: Path, config: Path) -> None:
    train.main(arguments(tmp_path, config, "--max_gaussians", 1000, "--iterations", 70))
    counts = [entry["num_gaussians"] for entry in read_log(tmp_path)]
    assert max(counts) == 1000
    assert len(PlyData.read(tmp_path / "point_cloud/iteration_70/point_cloud.ply")["vertex"]) <= 1000


# The same bits.


@pytest.mark.parametrize(
    ("stop", "number"),
    [
        (40, signal.SIGTERM),  # at a densification, an opacity reset and a repair
        (70, signal.SIGINT),  # at an IGD round
        (84, signal.SIGTERM),  # IGD and LA-KNN
    ],
)
def test_a_stopped_and_resumed_run_has_the_same_bits(
    finished: Path,
    config: Path,
    tmp_path: Path,
    stop: int,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        interrupt_during(stop, number, patch)
        with pytest.raises(UserError, match=rf"stopped at iteration {stop} of {LAST}\. Add --resume"):
            train.main(arguments(tmp_path, config))
    assert (tmp_path / f"chkpnt{stop}.pth").is_file()
    assert not (tmp_path / "point_cloud").exists()
    assert not RunFolder(tmp_path).finished
    train.main(arguments(tmp_path, config, "--resume"))
    assert result(tmp_path) == result(finished)
    assert RunFolder(tmp_path).finished


# A kill in the middle of writing the checkpoint of iteration 60.
KILLED = """
import os, torch
save = torch.save
def killed(state, file):
    save(state, file)
    if state.get("iteration") == 60:
        os.truncate(file, 1000)
        os._exit(9)
torch.save = killed
"""


def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(
    finished: Path, config: Path, tmp_path: Path
) -> None:
    command = arguments(tmp_path, config, "--checkpoint_interval", 30)
    killed = subprocess.run([sys.executable, "-c", KILLED + EVERY_DEGREE, *command], cwd=ROOT)
    assert killed.returncode == 9
    assert len(list(tmp_path.glob(".*.tmp*"))) == 1 and not (tmp_path / "chkpnt60.pth").exists()
    assert read_log(tmp_path)[-1]["iteration"] == 60  # written before the checkpoint
    train.main(arguments(tmp_path, config, "--resume"))
    assert result(tmp_path) == result(finished)
    assert not list(tmp_path.glob(".*"))


def test_a_run_stopped_in_its_last_iteration_is_finished(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_during(12, signal.SIGTERM, monkeypatch)
    train.main(arguments(tmp_path, config, "--iterations", 12))
    result(tmp_path, 12)
    assert RunFolder(tmp_path).finished


def test_a_finished_run_that_is_prolonged_is_unfinished_until_it_ends(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--iterations", 12, "--checkpoint_iterations", 12]
    train.main(arguments(tmp_path, config, *flags))
    interrupt_during(14, signal.SIGTERM, monkeypatch)
    with pytest.raises(UserError, match="stopped at iteration 14 of 20"):
        train.main(arguments(tmp_path, config, "--iterations", 20, "--resume"))
    assert not RunFolder(tmp_path).finished


def test_a_checkpoint_of_the_last_iteration_makes_a_whole_run_elsewhere(config: Path, tmp_path: Path) -> None:
    flags = ["--iterations", 12, "--checkpoint_iterations", 12]
    train.main(arguments(tmp_path / "run", config, *flags))
    start = tmp_path / "run" / "chkpnt12.pth"
    train.main(arguments(tmp_path / "other", config, "--iterations", 12, "--start_checkpoint", start))
    whole, other = result(tmp_path / "run", 12), result(tmp_path / "other", 12)
    assert all(other[name] == whole[name] for name in ("point_cloud.ply", "classifier.pth"))
    assert RunFolder(tmp_path / "other").finished


def test_the_log_is_written_before_the_checkpoint(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, state: Mapping[str, Any]) -> None:
        raise RuntimeError(f"killed at {state['iteration']}")

    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(RuntimeError, match="killed at 30"):
        train.main(arguments(tmp_path, config, "--checkpoint_interval", 30))
    assert [entry["iteration"] for entry in read_log(tmp_path)] == [10, 20, 30]


def test_a_checkpoint_starts_a_run_elsewhere(finished: Path, config: Path, tmp_path: Path) -> None:
    train.main(arguments(tmp_path, config, "--start_checkpoint", finished / "chkpnt60.pth"))
    expected = result(finished)
    again = result(tmp_path)
    for name in ("point_cloud.ply", "classifier.pth"):
        assert again[name] == expected[name], name
    assert read_log(tmp_path) == read_log(finished)[6:]


def test_another_seed_gives_another_model(finished: Path, config: Path, tmp_path: Path) -> None:
    train.main(arguments(tmp_path, config, "--seed", 1))
    other, expected = result(tmp_path), result(finished)
    assert all(other[name] != expected[name] for name in expected)


def test_the_number_of_threads_changes_no_bit(finished: Path, config: Path, tmp_path: Path) -> None:
    # In a process of its own: two threads that wait by spinning crawl on a busy machine, and OpenMP reads its
    # environment only once.
    subprocess.run(
        [sys.executable, "-c", EVERY_DEGREE, *arguments(tmp_path, config, "--threads", 2)],
        cwd=ROOT,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        check=True,
    )
    assert result(tmp_path) == result(finished)


# Stopping and refusing.


def test_what_a_cluster_sends_saves_and_says_how_to_go_on(config: Path, tmp_path: Path) -> None:
    command = arguments(tmp_path, config, "--iterations", 1500, "--checkpoint_interval", 5)
    process = subprocess.Popen(
        [sys.executable, "train.py", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "chkpnt5.pth").exists():  # now the iterations have begun
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
        process.send_signal(signal.SIGTERM)  # its parent's, which may come when the process is ending
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 2
    stopped = max(int(path.stem[6:]) for path in tmp_path.glob("chkpnt*.pth"))
    assert 5 <= stopped < 1500
    assert f"stopped at iteration {stopped} of 1500" in told and "--resume" in told
    assert f"chkpnt{stopped}.pth" in told and "Traceback" not in told

    last = stopped + 10
    train.main(arguments(tmp_path, config, "--iterations", last, "--resume"))
    assert (tmp_path / f"point_cloud/iteration_{last}/point_cloud.ply").is_file()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def short(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 iterations with the scores that later commands keep beside it."""
    folder = tmp_path_factory.mktemp("short") / "run"
    train.main(arguments(folder, config, "--iterations", 12, "--checkpoint_iterations", 10))
    for name in ("results.json", "eval_lerf_mask.json", "eval_lerf_mask.md"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], r"holds another run.*--overwrite.*--resume"),
        (["--overwrite", "-s", "nowhere"], "no such folder"),
        (["--overwrite", "--num_classes", 3], "num_classes is 3"),
        (["--overwrite", "--object_path", "nowhere"], "no masks of training views"),
        (["--resume", "--num_classes", 3], "num_classes is 3"),
        (["--resume", "--ignore_label", 0], "other ids"),
        (["--resume", "--iterations", 9], "checkpoint is of iteration 10, but the run ends at 9"),
        (["--start_checkpoint", "nowhere.pth"], "no such checkpoint"),
    ],
)
def test_a_refused_command_changes_no_byte_of_the_run(
    short: Path, config: Path, flags: list[object], message: str
) -> None:
    before = tree(short)
    with pytest.raises(UserError, match=message):
        train.main(arguments(short, config, *flags))
    assert tree(short) == before


@pytest.mark.parametrize("name", ["chkpnt10.pth", "training_log.json"])
def test_damaged_files_refuse_to_be_resumed_and_stay(
    short: Path, config: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(short, tmp_path / "run")
    damaged = tmp_path / "run" / name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    before = tree(tmp_path / "run")
    with pytest.raises(UserError, match=name):
        train.main(arguments(tmp_path / "run", config, "--resume"))
    assert tree(tmp_path / "run") == before


def test_overwriting_leaves_nothing_of_the_old_run(short: Path, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(short, folder)
    train.main(arguments(folder, config, "--iterations", 11, "--overwrite"))
    result(folder, 11)
    names = {path.name for path in folder.iterdir() if "tfevents" not in path.name}
    wanted = {"cfg_args", "cameras.json", "input.ply", "point_cloud"}
    assert names == wanted | {"training_log.json", "training_summary.json"}
    assert [path.name for path in (folder / "point_cloud").iterdir()] == ["iteration_11"]
    assert len(list(folder.glob("events.out.tfevents*"))) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-s", "nowhere"], r"nowhere: no such folder\. -s"),
        (
            ["--config_file", "CONFIG"],
            r"wrong\.json: unknown key 'densify_untl_iter'\. Nearest: 'densify_until",
        ),
        (["--num_classes", "3"], r"frame_00001\.png: holds id \d+, but num_classes is 3\. Use --num_classes"),
        (["--resume"], r"no chkpntN\.pth to resume from"),
        (["--device", "cuda"], r"--device cuda: .*"),
        (["--overwrite", "--resume"], r"--overwrite and --resume exclude each other"),
        (["--overwrite", "--start_checkpoint", "x.pth"], r"--overwrite and --start_checkpoint too: replace"),
        (["--object_path", "nowhere"], r"nowhere: no masks of training views"),
    ],
)
def test_errors_name_what_is_wrong_and_leave_nothing_half_written(
    flags: list[str],
    message: str,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"densify_untl_iter": 3}')
    flags = [str(wrong) if flag == "CONFIG" else flag for flag in flags]
    status = run_as_script(arguments(tmp_path / "run", config, *flags), monkeypatch)
    assert status == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") or "\nerror: " in told
    assert "Traceback" not in told
    assert re.search(message, told), told
    assert not (tmp_path / "run").exists(), "a folder that looks like a run was left"
