"""The ablation's bookkeeping: what runs, what is kept, what the table says. The commands are stand-ins."""

import json
from pathlib import Path

import pytest

from scripts import run_ablation
from utils.errors import UserError


def scores(**changes):
    row = {"miou": 0.8, "mbiou": 0.7, "mbiou_strict": 0.5, "mband_error": 0.1}
    record = {"scene": "a", "config": "baseline", "seed": 0, "psnr": 30.0, "ssim": 0.9}
    record |= {"num_gaussians": 1000, "seconds": 60.0, "rules": dict.fromkeys(run_ablation.RULES, row)}
    return record | changes


def with_miou(value, **changes):
    record = scores(**changes)
    rules = {rule: row | {"miou": value} for rule, row in record["rules"].items()}
    return record | {"rules": rules}


@pytest.fixture
def train_calls(monkeypatch):
    """Replaces the commands by ones that write a run's records; collects the training commands."""
    calls = []

    def call(command, **_):
        script, folder = command[1], Path(command[command.index("-m") + 1])
        if script == "train.py":
            calls.append(command)
            (folder / "training_summary.json").write_text(
                json.dumps({"num_gaussians": 7, "iterations": 3, "seconds": 1.5})
            )
        elif script == "metrics.py":
            (folder / "results.json").write_text(json.dumps({"psnr": 20.0, "ssim": 0.5}))
        elif script.endswith("eval_lerf_mask.py"):
            (folder / "eval_lerf_mask.json").write_text(json.dumps({"rules": scores()["rules"]}))
        return 0

    monkeypatch.setattr(run_ablation.subprocess, "call", call)
    return calls


def ablate(folder, *flags):
    run_ablation.main(
        ["--scenes", "data/demo", "--out", str(folder), "--configs", "baseline", "gradiseg", *flags]
    )


def test_runs_every_cell_once_and_only_again_where_the_commands_changed(tmp_path, train_calls):
    ablate(tmp_path, "--seeds", "0", "1", "--train", "--iterations 3")
    assert len(train_calls) == 4
    ablate(tmp_path, "--seeds", "0", "1", "2", "--train", "--iterations 3")
    assert len(train_calls) == 6  # the third seed alone
    ablate(tmp_path, "--train", "--iterations 4")
    assert len(train_calls) == 8
    records = json.loads((tmp_path / "results.json").read_text())
    assert [(r["config"], r["num_gaussians"]) for r in records] == [("baseline", 7), ("gradiseg", 7)]
    assert "| demo | gradiseg | 1 |" in (tmp_path / "table.md").read_text()


def test_a_failed_command_stops_with_its_last_line_and_keeps_what_is_done(tmp_path, train_calls, monkeypatch):
    ablate(tmp_path)

    def fail(command, stdout, **_):
        stdout.write("reading\nthe disk is full\n")
        return 2

    monkeypatch.setattr(run_ablation.subprocess, "call", fail)
    with pytest.raises(UserError, match="the disk is full"):
        ablate(tmp_path, "--seeds", "0", "1")
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2


def test_every_configuration_names_a_file_and_flags_that_train_understands():
    import train
    from arguments import parse

    for config in run_ablation.CONFIGS:
        run = run_ablation.Run(Path("data/demo"), config, 0, Path("out"), ("--train_split",))
        parse(train.GROUPS, run.commands[0][1:])


def test_unknown_configuration_is_refused_before_anything_runs(tmp_path, train_calls):
    with pytest.raises(UserError, match="neither a JSON file nor one of"):
        run_ablation.main(["--scenes", "data/demo", "--out", str(tmp_path), "--configs", "baselin"])
    assert not train_calls


def test_table_takes_the_mean_over_scenes_before_the_deviation_over_seeds():
    records = [
        with_miou(value, scene=scene, seed=seed)
        for scene, seed, value in [("a", 0, 0.5), ("a", 1, 0.7), ("b", 0, 0.7), ("b", 1, 0.5)]
    ]
    rows = run_ablation.table(records).splitlines()
    assert any(row.startswith("| a | baseline | 2 | 0.600 ± 0.141 |") for row in rows)
    assert any(row.startswith("| mean | baseline | 2 | 0.600 ± 0.000 |") for row in rows)


def test_table_has_no_mean_of_a_configuration_that_lacks_a_scene():
    records = [scores(scene="a"), scores(scene="b"), scores(scene="a", config="gradiseg")]
    text = run_ablation.table(records)
    assert "| mean | baseline |" in text and "| mean | gradiseg |" not in text
