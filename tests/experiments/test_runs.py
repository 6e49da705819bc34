"""Runs as data: which commands a scene, a configuration, a seed and flags make."""

from pathlib import Path

import pytest

import train
from arguments import parse
from experiments import ablation, paper
from experiments.__main__ import parse_args
from experiments.configurations import CONFIGS, ROOT, configuration
from experiments.run import TRAINING, Run, training
from utils.errors import UserError

DEMO, OUT = ROOT / "data" / "demo", Path("out")


def command(run: Run, step: str, index: int = 0) -> str:
    """A command of a run as one types it."""
    return next(known.lines[index] for known in run.steps if known.name == step)


@pytest.mark.parametrize(
    "name", [*CONFIGS, "igd_from_6000", "paper", str(ROOT / "config/gradiseg/no_igd.json")]
)
def test_every_configuration_names_a_file_and_flags_that_train_understands(name: str) -> None:
    run = training(DEMO, OUT, name, ["--train_split"], seed=2)
    options = list(run.steps[0].commands[0][1:])
    options[options.index("--config_file") + 1] = str(ROOT / configuration(name)[0])
    assert parse(train.GROUPS, options)[-1].seed == 2


def test_igd_from_n_moves_both_ends_and_la_knn_only_where_it_must() -> None:
    assert configuration("igd_from_9000")[1] == (
        ["--densify_until_iter", "9000", "--igd_from_iter", "9000", "--igd_until_iter", "12000"]
    )
    assert "--igd_until_iter 21000 --la_knn_from_iter 21000" in command(
        training(DEMO, OUT, "igd_from_18000"), "training"
    )


@pytest.mark.parametrize("name", ["baselin", "nowhere/a.json", "igd_from_soon"])
def test_an_unknown_configuration_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"no such (file|configuration).*igd_from_N"):
        training(DEMO, OUT, name)


def test_all_flags_of_train_are_known() -> None:
    assert TRAINING == train.GROUPS


def test_a_wrong_flag_of_train_is_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match="iteratoins"):
        training(DEMO, OUT, "gradiseg", ["--iteratoins", "3"])


def test_every_training_saves_checkpoints() -> None:
    (step, *_) = training(DEMO, OUT, "gradiseg", ["--schedule_scale", "0.1"]).steps
    assert step.checkpoint_interval == 300 and not step.keeps_checkpoints
    (step, *_) = training(DEMO, OUT, "gradiseg", ["--iterations", "5"]).steps
    assert step.checkpoint_interval == 1
    (step, *_) = training(DEMO, OUT, "gradiseg", ["--checkpoint_interval", "70"]).steps
    assert step.checkpoint_interval == 70 and step.keeps_checkpoints


def test_the_device_of_a_training_is_that_of_all_its_commands() -> None:
    run = training(DEMO, OUT, "gradiseg", ["--device", "cpu"], text=["--box_threshold", "0.3"])
    assert all("--device cpu" in line for step in run.steps for line in step.lines)
    assert "--device" not in command(training(DEMO, OUT, "gradiseg"), "pictures")


def test_words_are_a_step_that_may_fail() -> None:
    (*_, words) = training(DEMO, OUT, "gradiseg", text=["--box_threshold", "0.3"]).steps
    assert words.optional and words.makes == "eval_text.json" and "--text --box_threshold" in words.lines[0]


def test_an_ablation_is_made_seed_by_seed() -> None:
    runs = ablation.cells([Path("a"), Path("b")], ["baseline", "gradiseg"], [0, 1], OUT, ["-r", "2"])
    assert [str(run.folder) for run in runs][:3] == [
        "out/a/baseline/0",
        "out/a/gradiseg/0",
        "out/b/baseline/0",
    ]
    assert {run.about["seed"] for run in runs[:4]} == {0}
    assert "--train_split -r 2 --seed 1" in command(runs[-1], "training")
    assert "--lpips none" in command(runs[0], "pictures", 1)


def test_a_configuration_wins_over_the_flags_that_all_runs_have() -> None:
    (run,) = ablation.cells([Path("a")], ["gradiseg_exact"], [0], OUT, ["--object_path", "masks"])
    assert command(run, "training").index("masks") < command(run, "training").index("object_mask_exact")


def test_mipnerf360_takes_every_scene_at_its_published_size() -> None:
    runs = {str(run.folder): run for run in paper.mipnerf360_runs(Path("data"), OUT, ["--seed", "7"])}
    assert len(runs) == 2 * 2 * 9
    for scenes, images in ((paper.OUTDOORS, "images_4"), (paper.INDOORS, "images_2")):
        for scene in scenes:
            for factor, expected in (("published", images), ("8", "images_8")):
                run = runs[f"out/{factor}/gradiseg/{scene}"]
                line = command(run, "training")
                assert f"-i {expected} --eval --seed 7" in line and "gradiseg/train.json" in line
                assert "--lpips_from_zero" in command(run, "pictures", 1)


def test_lerf_mask_chooses_by_words_with_the_masks_of_its_scene() -> None:
    masks = {"text": ["--box_threshold", "0.2"], "text_masks": Path("marks"), "scenes": ["ramen"]}
    runs = paper.lerf_mask_runs(Path("data"), OUT, [], **masks)  # type: ignore[arg-type]
    assert [run.folder.as_posix() for run in runs] == [
        f"out/{config}/ramen" for config in ("baseline", "no_igd", "no_la_knn", "gradiseg")
    ]
    assert "--text --box_threshold 0.2 --text_masks marks/ramen" in command(runs[0], "words")
    (run, *_) = paper.lerf_mask_runs(Path("data"), OUT, [], text=None)
    assert [step.name for step in run.steps] == ["training", "pictures", "masks", "objects"]


def test_runs_of_a_configuration_from_elsewhere_lie_below_out(tmp_path: Path) -> None:
    mine = tmp_path / "my.json"
    mine.write_text("{}")
    runs = paper.lerf_mask_runs(Path("data"), OUT, [], scenes=["ramen"], configs=[str(mine)])
    runs += paper.mipnerf360_runs(Path("data"), OUT, [], scenes=["room"], configs=[str(mine)], factors=["8"])
    assert [run.folder.as_posix() for run in runs] == ["out/my/ramen", "out/8/my/room"]


def test_what_the_command_does_not_know_is_for_train() -> None:
    flags = ["-r", "2", "--ignore_label", "-1", "--eval", "--checkpoint_iterations", "10", "20"]
    args, rest = parse_args(["scene", "a", "b", "gradiseg", *flags, "--jobs", "2", "--render="])
    assert rest == flags and (args.jobs, args.render, args.metrics, args.text) == (2, [], [], [])
    args, rest = parse_args(["mipnerf360", "a", "b", "--scenes", "garden", "room", "--factors", "8", *flags])
    assert rest == flags and args.scenes == ["garden", "room"] and args.factors == ["8"]
