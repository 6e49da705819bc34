"""The generated table of options."""

from pathlib import Path

import pytest

from arguments.options import fields_of
from scripts import make_options
from utils.errors import UserError


def test_the_page_is_what_the_groups_declare() -> None:
    assert make_options.TARGET.read_text(encoding="utf-8") == make_options.page()
    make_options.main(["--check"])


def test_every_option_is_in_a_table() -> None:
    text = make_options.page()
    for field in fields_of(list(make_options.groups_of_commands())):
        assert f"`--{field.name}`" in text


def test_a_page_out_of_date_is_told_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_options, "TARGET", tmp_path / "options.md")
    with pytest.raises(UserError, match=r"options\.md is out of date"):
        make_options.main(["--check"])
    make_options.main([])
    make_options.main(["--check"])
