"""The command line: what help shows and in which order, what a command leaves out, spellings."""

from pathlib import Path

import pytest

import check_scene
import render
import train
from arguments import NEWEST, ModelParams, RunParams, parse, parse_with_run, write_cfg_args
from arguments.flags import make_parser
from arguments.options import fields_of, spellings
from utils.errors import UserError


def help_of(groups: tuple[type, ...], without: tuple[str, ...] = ()) -> str:
    return make_parser(groups, "command.py", "About it.", without).format_help()


def options_in(text: str) -> list[str]:
    """The lines of help that begin an option."""
    return [line for line in text.splitlines() if line.startswith("  -")]


def test_help_shows_ten_first_and_every_option_once() -> None:
    text = help_of(train.GROUPS)
    first = text[text.index("What people set:") : text.index("How a scene is read")]
    assert len(options_in(first)) == 10
    assert "--config_file" in first and "--reg3d_k" not in first
    shown = [line.replace(",", "").split() for line in options_in(text)]
    for field in fields_of(train.GROUPS):
        assert sum(set(spellings(field)) <= set(line) for line in shown) == 1, field.name


def test_help_tells_how_to_turn_off_what_is_on_and_every_default() -> None:
    text = " ".join(help_of(train.GROUPS).split())
    assert "(on; --no_igd turns it off)" in text and "(default: 1.0)" in text and "(default: 0)" in text


def test_what_a_loaded_run_decides_is_not_what_people_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cfg_args(tmp_path, ModelParams())
    with pytest.raises(SystemExit):
        parse_with_run(render.GROUPS, ["-m", str(tmp_path), "--help"], without=render.WITHOUT)
    text = capsys.readouterr().out
    assert text.index("--model_path") < text.index("--iteration") < text.index("--source_path")
    assert "(default: the run's)" in " ".join(text.split()) and "--sh_degree" not in text


def test_what_a_command_ignores_is_no_option_of_it() -> None:
    for flag in ("-m", "-r", "-w", "--sh_degree", "--data_cache_mb"):
        with pytest.raises(UserError, match=f"unknown option {flag}"):
            parse(check_scene.GROUPS, [flag, "1"], without=check_scene.WITHOUT)
    for value in ("7", "300"):  # Gaussian Grouping's scripts give it to render.py; it decides nothing there
        parse(render.GROUPS, ["--num_classes", value], without=render.WITHOUT)
    assert "--num_classes" not in help_of(render.GROUPS, render.WITHOUT)


def test_resume_takes_a_file_or_none_and_has_the_old_spelling() -> None:
    for argv, resume in (
        ([], ""),
        (["--resume"], NEWEST),
        (["--resume", "a/chkpnt7.pth"], "a/chkpnt7.pth"),
        (["--start_checkpoint", "chkpnt7.pth"], "chkpnt7.pth"),
        (["--start-checkpoint=chkpnt7.pth"], "chkpnt7.pth"),
        (["--resume", "--quiet"], NEWEST),
    ):
        (run,) = parse((RunParams,), argv)
        assert run.resume == resume
