"""What is told besides results, and when."""

import logging
from collections.abc import Iterator

import pytest

from utils.log import bar, logger, set_up


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    """The logger as the library finds it, and afterwards as it was."""
    level = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(level)


def show() -> None:
    """What a library function does: a line, a warning, a bar."""
    logger.info("a line")
    logger.warning("a warning")
    assert list(bar([1, 2], "a bar")) == [1, 2]


def test_the_library_alone_tells_warnings_only(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    show()
    assert caplog.messages == ["a warning"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_tells_all_unless_quiet(
    quiet: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    set_up(not quiet)  # an earlier command of the process counts no more
    set_up(quiet)
    show()
    assert caplog.messages == (["a warning"] if quiet else ["a line", "a warning"])
    assert ("a bar" in capsys.readouterr().err) != quiet
    assert not logging.getLogger("another").isEnabledFor(logging.INFO)


def test_lines_go_to_stderr_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    set_up(quiet=False)
    logger.info("50% done")
    assert capsys.readouterr() == ("", "50% done\n")


def test_a_bar_is_moved_by_hand_and_stays_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(quiet=False)
    for leave in (False, True):
        with bar(what="Poses", total=3, leave=leave) as progress:
            progress.update(3)
        shown = capsys.readouterr().err
        assert "Poses:   0%" in shown and ("Poses: 100%" in shown.split("\r")[-1]) == leave
