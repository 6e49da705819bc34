"""Options: precedence, errors that name what is wrong, and `cfg_args` as text that is never evaluated."""

import dataclasses
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from arguments import (
    DeviceParams,
    EditParams,
    GradiSegParams,
    ModelParams,
    OptimizationParams,
    RepairParams,
    RunParams,
    parse,
    parse_with_run,
    read_cfg_args,
    write_cfg_args,
)
from utils.errors import UserError

TRAIN_GROUPS = (ModelParams, DeviceParams, OptimizationParams, GradiSegParams, RepairParams, RunParams)
EDIT_GROUPS = (ModelParams, DeviceParams, EditParams)
SHIPPED = sorted(Path(__file__).parents[2].glob("config/*/*.json"))
CONFIGS = [path for path in SHIPPED if path.parent.name != "edit"]  # those are recipes, no options
GAUSSIAN_GROUPING_CFG = (
    "Namespace(data_device='cuda', eval=False, images='images', model_path='output/figurines', n_views=100, "
    "num_classes=256, object_path='object_mask', random_init=False, resolution=1, sh_degree=3, "
    "source_path='data/figurines', train_split=True, white_background=False)"
)


def config(folder: Path, **values: Any) -> str:
    path = folder / "options.json"
    path.write_text(json.dumps(values))
    return str(path)


def filled(argv: list[str]) -> dict[str, Any]:
    return {key: value for group in parse(TRAIN_GROUPS, argv) for key, value in vars(group).items()}


def test_nothing_given_yields_the_defaults() -> None:
    for instance, group in zip(parse(TRAIN_GROUPS, []), TRAIN_GROUPS, strict=True):
        if group is not RunParams:  # its lists gain the last iteration
            assert instance == group()


def test_flag_beats_json_beats_default(tmp_path: Path) -> None:
    path = config(tmp_path, reg3d_k=7, reg3d_lambda_val=3, igd=False)
    values = filled(["--config_file", path, "--reg3d_k", "9", "--igd"])
    assert (values["reg3d_k"], values["reg3d_lambda_val"], values["igd"]) == (9, 3.0, True)
    assert values["reg3d_interval"] == OptimizationParams().reg3d_interval


def test_a_flag_that_repeats_the_default_still_beats_json(tmp_path: Path) -> None:
    assert filled(["--config_file", config(tmp_path, reg3d_k=7), "--reg3d_k", "5"])["reg3d_k"] == 5


def test_short_hyphenated_and_negated_forms() -> None:
    values = filled(
        ["-s", "scene", "-m", "out", "-i", "images_2", "-r", "2", "-w", "--no-la-knn", "--train-split"]
        + ["--schedule-scale=0.5", "--ignore_label", "-1"]
    )
    assert values["source_path"] == str(Path("scene").absolute())
    assert (values["model_path"], values["images"], values["resolution"]) == ("out", "images_2", 2)
    assert values["white_background"] and values["train_split"] and not values["la_knn"]
    assert values["schedule_scale"] == 0.5


def test_hyphens_inside_values_survive() -> None:
    assert filled(["--object-path=my-masks", "--model_path", "a-b"])["object_path"] == "my-masks"


def test_the_last_iteration_is_always_saved_and_tested() -> None:
    values = filled(["--iterations", "3000", "--schedule_scale", "0.1", "--save_iterations", "200", "100"])
    assert values["save_iterations"] == [100, 200, 300]
    assert values["test_iterations"] == [300]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--reg3d_kk", "5"], ["--reg3d_kk", "--reg3d_k"]),
        (["--sede=3"], ["--sede", "--seed"]),
        (["stray"], ["stray"]),
        (["--iterations", "0"], ["--iterations", "at least 1"]),
        (["--iterations", "many"], ["--iterations", "many"]),
        (["--num_classes", "1"], ["num_classes", "at least 2"]),
        (["--num_classes", "65537"], ["num_classes", "at most 65536"]),
        (["--schedule_scale", "0"], ["schedule_scale", "above 0"]),
        (["--schedule_scale", "nan"], ["schedule_scale", "finite"]),
        (["-r", "3"], ["resolution", "3"]),
        (["-r", "0"], ["resolution", "0"]),
        (["--igd_rule", "largest"], ["igd_rule", "largest", "mean_std"]),
        (["--la_knn_candidates", "0"], ["la_knn_candidates"]),
        (["--save_iterations", "5", "0"], ["save_iterations"]),
    ],
)
def test_bad_flags_are_named(argv: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        parse(TRAIN_GROUPS, argv)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"reg3d_intervall": 5}, ["reg3d_intervall", "'reg3d_interval'"]),
        ({"reg3d_k": "5"}, ["reg3d_k", "int", "str"]),
        ({"reg3d_k": True}, ["reg3d_k", "int", "bool"]),
        ({"reg3d_k": 2.5}, ["reg3d_k", "int", "float"]),
        ({"igd": 1}, ["igd", "bool"]),
        ({"save_iterations": 5}, ["save_iterations", "list of int"]),
        ({"save_iterations": ["5"]}, ["save_iterations", "int"]),
        ({"igd_split": "sideways"}, ["igd_split", "directional"]),
        ({"num_classes": 100000}, ["num_classes", "65536"]),
        ({"config_file": "other.json"}, ["config_file"]),
    ],
)
def test_bad_json_names_file_key_and_expectation(
    tmp_path: Path, values: dict[str, Any], words: list[str]
) -> None:
    path = config(tmp_path, **values)
    with pytest.raises(UserError) as error:
        parse(TRAIN_GROUPS, ["--config_file", path])
    assert all(word in str(error.value) for word in [path, *words])


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": }'])
def test_json_that_is_no_object_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.json"):
        parse(TRAIN_GROUPS, ["--config_file", str(path)])
    with pytest.raises(UserError, match=r"absent\.json"):
        parse(TRAIN_GROUPS, ["--config_file", str(tmp_path / "absent.json")])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_configs_that_ship_are_valid(path: Path, tmp_path: Path) -> None:
    if path.parent.name == "object_removal":
        write_cfg_args(tmp_path, ModelParams())
        parse_with_run((*EDIT_GROUPS, RunParams), ["-m", str(tmp_path), "--config_file", str(path)])
    else:
        parse(TRAIN_GROUPS, ["--config_file", str(path)])


def test_the_configuration_of_the_method_holds_the_defaults() -> None:
    """It is there for people who look for a file, and for the schedule at a glance."""
    method = CONFIGS[0].parents[1] / "gradiseg" / "train.json"
    assert json.loads(method.read_text())
    for instance, group in zip(
        parse(TRAIN_GROUPS, ["--config_file", str(method)]), TRAIN_GROUPS, strict=True
    ):
        assert group is RunParams or instance == group()


def test_the_paper_to_the_letter_has_none_of_what_is_ours() -> None:
    paper = CONFIGS[0].parents[1] / "gradiseg" / "paper.json"
    *_, opt, gradiseg, repair, _ = parse(TRAIN_GROUPS, ["--config_file", str(paper)])
    assert not (repair.repair_masks or repair.identity_lambda_by_rgb or repair.boundary_interval)
    assert opt.lambda_dssim == 0  # eq. 5
    assert gradiseg.igd and gradiseg.la_knn and gradiseg.la_knn_candidates == "all"  # eq. 4


@pytest.mark.parametrize("name", ["gradiseg/baseline.json", "gaussian_dataset/train.json"])
def test_what_stands_for_gaussian_grouping_has_none_of_what_is_new(name: str) -> None:
    *_, gradiseg, repair, _ = parse(TRAIN_GROUPS, ["--config_file", str(CONFIGS[0].parents[1] / name)])
    assert not (gradiseg.igd or gradiseg.la_knn)
    assert not (repair.repair_masks or repair.identity_lambda_by_rgb or repair.boundary_interval)


def test_cfg_args_round_trip_every_option(tmp_path: Path) -> None:
    groups = parse(TRAIN_GROUPS, ["-s", 'it\'s a "scene"', "--iterations", "77", "--save_iterations", "3"])
    write_cfg_args(tmp_path, *groups)
    options = {key: value for group in groups for key, value in vars(group).items()}
    assert read_cfg_args(tmp_path) == options | {"n_views": 100, "random_init": False}


# What Gaussian Grouping's ModelParams hand to its Scene, cameras and models. Its commands take none of them
# from a default: what `cfg_args` lacks, they lack.
READ_BY_GAUSSIAN_GROUPING = {
    "sh_degree": int,
    "source_path": str,
    "model_path": str,
    "images": str,
    "resolution": int,
    "white_background": bool,
    "data_device": str,
    "eval": bool,
    "n_views": int,
    "random_init": bool,
    "train_split": bool,
    "object_path": str,
    "num_classes": int,
}


@pytest.mark.parametrize("flags", [[], ["--eval"], ["--train_split"]])
def test_gaussian_groupings_commands_find_all_they_read(tmp_path: Path, flags: list[str]) -> None:
    model, *_ = parse((ModelParams,), ["-s", "scene", "-m", str(tmp_path), *flags])
    write_cfg_args(tmp_path, model)
    text = (tmp_path / "cfg_args").read_text()
    stored = eval(text, {"__builtins__": {}, "Namespace": Namespace})  # as they do
    found = {name: type(getattr(stored, name)) for name in READ_BY_GAUSSIAN_GROUPING}
    assert found == READ_BY_GAUSSIAN_GROUPING
    assert stored.n_views == 100 and not stored.random_init  # all views, from the scene's own points
    assert stored.eval == bool(flags)  # it renders test views only under `eval`, whoever chose them
    assert stored.train_split == (flags == ["--train_split"])


def test_gaussian_groupings_own_cfg_args_are_read(tmp_path: Path) -> None:
    (tmp_path / "cfg_args").write_text(GAUSSIAN_GROUPING_CFG)
    assert read_cfg_args(tmp_path)["source_path"] == "data/figurines"
    model, _, edit = parse_with_run(EDIT_GROUPS, ["-m", str(tmp_path), "--ids", "3", "7"])
    assert (model.num_classes, model.resolution, model.train_split) == (256, 1, True)
    assert edit.select_obj_id == [3, 7]


@pytest.mark.parametrize(
    "text",
    [
        "Namespace(a=__import__('os').getcwd())",
        "Namespace(a=open('/etc/hostname'))",
        "Namespace(1)",
        "Namespace(**{'a': 1})",
        "dict(a=1)",
        "Namespace(a=1",
        "Namespace(a=" + "[" * 3000,  # a MemoryError of Python's parser
        "",
    ],
)
def test_cfg_args_are_never_evaluated(tmp_path: Path, text: str) -> None:
    (tmp_path / "cfg_args").write_text(text)
    with pytest.raises(UserError, match="cfg_args"):
        read_cfg_args(tmp_path)


def test_a_run_gives_what_flag_and_json_leave_open(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_cfg_args(
        run, ModelParams(source_path="/s", num_classes=9, resolution=4), DeviceParams(device="cuda")
    )
    path = config(tmp_path, num_classes=12, images="images_2")
    argv = ["-m", str(run), "--config_file", path, "--images", "images_8"]
    model, pipeline, _ = parse_with_run((ModelParams, DeviceParams, RunParams), argv)
    assert (model.images, model.num_classes, model.resolution) == ("images_8", 12, 4)
    assert model.source_path == "/s" and model.model_path == str(run)
    assert pipeline.device == "auto"  # a matter of the command, not of the run


def test_a_missing_run_is_named_with_a_remedy(tmp_path: Path) -> None:
    for argv, word in (
        ([], "-m"),
        (["-m", str(tmp_path / "absent")], "absent"),
        (["-m", str(tmp_path)], "cfg_args"),
    ):
        with pytest.raises(UserError, match=word):
            parse_with_run(EDIT_GROUPS, argv)


def test_no_two_groups_share_an_option() -> None:
    names = [field.name for group in (*TRAIN_GROUPS, EditParams) for field in dataclasses.fields(group)]
    assert len(names) == len(set(names))


def test_lists_are_not_shared_between_instances() -> None:
    RunParams().save_iterations.append(1)
    assert RunParams().save_iterations == []
