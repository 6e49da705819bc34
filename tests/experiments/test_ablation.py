"""The ablation's table, and the command on a tiny scene."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import ablation
from experiments.run import Run, Step
from scripts import run_ablation
from utils.errors import UserError


def scores(**changes: Any) -> dict[str, Any]:
    """A record of a run."""
    row = {"miou": 0.8, "mbiou": 0.7, "mbiou_strict": 0.5, "mband_error": 0.1}
    record = {"scene": "a", "config": "baseline", "seed": 0, "psnr": 30.0, "ssim": 0.9}
    record |= {"num_gaussians": 1000, "seconds": 60.0, "rules": dict.fromkeys(ablation.RULES, row)}
    return record | changes


def with_miou(value: float, **changes: Any) -> dict[str, Any]:
    """A record with another mIoU."""
    record = scores(**changes)
    return record | {"rules": {rule: row | {"miou": value} for rule, row in record["rules"].items()}}


def test_table_takes_the_mean_over_scenes_before_the_deviation_over_seeds() -> None:
    records = [
        with_miou(value, scene=scene, seed=seed)
        for scene, seed, value in [("a", 0, 0.5), ("a", 1, 0.7), ("b", 0, 0.7), ("b", 1, 0.5)]
    ]
    rows = ablation.table(records).splitlines()
    assert any(row.startswith("| a | baseline | 2 | 0.600 ± 0.141 |") for row in rows)
    assert any(row.startswith("| mean | baseline | 2 | 0.600 ± 0.000 |") for row in rows)


def test_table_has_no_mean_of_a_configuration_that_lacks_a_scene() -> None:
    records = [scores(scene="a"), scores(scene="b"), scores(scene="a", config="gradiseg")]
    text = ablation.table(records)
    assert "| mean | baseline |" in text and "| mean | gradiseg |" not in text


def test_table_has_objects_cut_out_where_all_runs_have_them() -> None:
    means = dict.fromkeys(("iou", "biou", "biou_strict", "spill"), 0.75)
    extracted = dict.fromkeys(ablation.SELECTIONS, means)
    records = [
        scores(seed=seed) | {"extracted": extracted, "impurity": 0.1, "hidden": 0.2} for seed in (0, 1)
    ]
    text = ablation.table(records)
    assert "Objects cut out by votes inside" in text
    assert "| 0.750 ± 0.000 | 0.75 ± 0.00 | 0.100 ± 0.000 | 0.200 ± 0.000 |" in text
    assert "cut out" not in ablation.table([*records, scores(seed=2)])


def ablate(out: Path, *flags: str) -> list[dict[str, Any]]:
    """The records of an ablation."""
    run_ablation.main(
        ["--scenes", "data/demo", "--out", str(out), "--configs", "baseline", "gradiseg", *flags]
    )
    records: list[dict[str, Any]] = json.loads((out / "results.json").read_text())
    return records


# In the place of all commands of a run: notes the call and writes the records.
RECORDS = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder.parents[2] / "calls").open("a").write(" ".join(sys.argv) + chr(10))
for name, record in json.loads(sys.argv[2]).items():
    (folder / name).write_text(json.dumps(record))
"""


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose one command writes the records of a run, and a line into `calls` beside the scenes."""

    def training(scene: Path, folder: Path, config: str, flags: Any, *, seed: int, metrics: Any) -> Run:
        records = {
            "training_summary.json": {"num_gaussians": 7, "iterations": 3, "seconds": 1.5},
            "results.json": {"psnr": 20.0, "ssim": 0.5},
            "eval_lerf_mask.json": {"rules": scores()["rules"]},
        }
        command = ("-c", RECORDS, str(folder), json.dumps(records), *flags)
        step = Step("all", (command,), "results.json")
        return Run(scene, folder, (step,), {"config": config, "seed": seed})

    monkeypatch.setattr(ablation, "training", training)


def test_an_ablation_makes_every_cell_once_and_again_only_where_its_commands_changed(
    tmp_path: Path, quick_runs: None
) -> None:
    calls = tmp_path / "calls"
    ablate(tmp_path, "--seeds", "0", "1", "--train", "--iterations 3")
    assert len(calls.read_text().splitlines()) == 4
    ablate(tmp_path, "--seeds", "0", "1", "2", "--train", "--iterations 3", "--jobs", "2")
    assert len(calls.read_text().splitlines()) == 6  # the third seed alone
    records = ablate(tmp_path, "--train", "--iterations 4")
    assert len(calls.read_text().splitlines()) == 8
    assert [(r["config"], r["num_gaussians"]) for r in records] == [("baseline", 7), ("gradiseg", 7)]
    assert "| demo | gradiseg | 1 |" in (tmp_path / "table.md").read_text()
    assert "demo/gradiseg/0" in (tmp_path / "runs.html").read_text()


def test_scenes_without_true_masks_are_refused_before_anything_runs(tmp_path: Path, quick_runs: None) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match=r"bare/test_mask: not there"):
        ablate(tmp_path / "out", "--scenes", "data/demo", str(tmp_path / "bare"))
    assert not (tmp_path / "out").exists()


def test_two_runs_of_one_folder_are_refused_before_anything_runs(tmp_path: Path, quick_runs: None) -> None:
    for name in ("x", "y"):
        (tmp_path / name / "half" / "test_mask").mkdir(parents=True)
    scenes = [str(tmp_path / name / "half") for name in ("x", "y")]
    with pytest.raises(UserError, match=r"half/baseline/0: two runs would share it"):
        ablate(tmp_path / "out", "--scenes", *scenes)
    with pytest.raises(UserError, match="two runs would share it"):
        ablate(tmp_path / "out", "--configs", "x/my.json", "y/my.json")
    assert not (tmp_path / "out").exists()


def test_an_unknown_configuration_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such configuration"):
        run_ablation.main(["--scenes", "data/demo", "--out", str(tmp_path / "out"), "--configs", "baselin"])
    assert not (tmp_path / "out").exists()
