"""What the documents name exists: links, anchors, places in the code, every command with its flags.

A block of commands is fenced and tagged `bash`. One that begins with `# at commit <hash>` belongs to that
commit and is left alone: its flags may be gone.
"""

import argparse
import ast
import functools
import importlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.test_imports import LAYERS

ROOT = Path(__file__).resolve().parents[1]


def files(*suffixes: str) -> list[Path]:
    """The repository's files with these suffixes; not what hidden folders, builds and runs hold."""
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name[0] != "." and name not in ("build", "output")]
        found += [Path(folder, name) for name in names if name.endswith(suffixes)]
    return sorted(found)


PAGES = files(".md")
ARCHITECTURE = ROOT / "docs/architecture.md"

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```", re.M | re.S)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
HISTORICAL = re.compile(r"# at commit [0-9a-f]{7,40}\n")
COMMAND = re.compile(r"^ *(?:\.venv/bin/)?(?:python|bash|pip|hf) ", re.M)
INLINE_COMMAND = re.compile(r"`(python [^`]+|bash [^`]+)`")
PLACE = re.compile(r"`([\w/.-]+\.(?:py|sh)): (\w+)`")
# Scripts that are a command of `python -m experiments`.
EXPERIMENTS = {"run_scene.sh": "scene", "lerf_mask.sh": "lerf_mask", "mipnerf360.sh": "mipnerf360"}
TRAINS = {"photos_to_report.sh": 3}  # hands further arguments to train.py, those behind so many


def name_of(page: Path) -> str:
    """A page's path within the repository, for the names of tests."""
    return page.relative_to(ROOT).as_posix()


def every_page(test: Callable[..., None]) -> Any:
    """A test for each page."""
    return pytest.mark.parametrize("page", PAGES, ids=name_of)(test)


@functools.cache
def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in HEADING.findall(prose(page)):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without their indentation."""
    return [
        re.sub(rf"^{match['indent']}", "", match["text"], flags=re.M)
        for match in FENCE.finditer(page.read_text(encoding="utf-8"))
        if match["language"] == language
    ]


def current(page: Path) -> list[str]:
    """The blocks of commands that must work today."""
    return [block for block in blocks(page, "bash") if not HISTORICAL.match(block)]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a block; what stands behind `#` is left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


class Parsed(BaseException):  # no handler of a command may catch it
    """A parser is through with its arguments, but for `unknown`."""

    def __init__(self, unknown: list[str]) -> None:
        self.unknown = unknown


def left_over(script: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the parser of a Python script does not know of these arguments; it fails where it rejects one.

    Nothing but the parser of the script runs.
    """
    original = argparse.ArgumentParser.parse_known_args
    depth = 0

    def parse_known_args(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        depth += 1  # subcommands have parsers of their own
        try:
            namespace, unknown = original(self, *args, **kwargs)
        finally:
            depth -= 1
        if depth:
            return namespace, unknown
        raise Parsed(unknown)

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
        patch.setattr(sys, "argv", [str(script), *arguments])
        try:
            main_of(script)()
        except Parsed as parsed:
            return parsed.unknown
        except SystemExit as error:
            pytest.fail(f"{name_of(script)} {shlex.join(arguments)}: the parser ends with {error}")
    pytest.fail(f"{name_of(script)}: no parser was asked")


def accepts(script: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail unless the parser of a Python script takes these arguments."""
    unknown = left_over(script, arguments, monkeypatch)
    assert not unknown, f"{name_of(script)}: unknown {unknown}"


@functools.cache
def main_of(script: Path) -> Callable[[], None]:
    """`main` of a script, imported under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"documented_{script.parent.name}_{script.stem}", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    before = list(sys.path)
    sys.path.insert(0, str(script.parent))  # as for a script that is run
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    main: Callable[[], None] = module.main
    return main


def check_python(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python FILE ARGUMENTS` or `python -m MODULE ARGUMENTS`; what `experiments` leaves is train.py's."""
    if words[0] == "-m":
        script = ROOT / words[1].replace(".", "/") / "__main__.py"
        if script.is_file():
            accepts(ROOT / "train.py", left_over(script, words[2:], monkeypatch), monkeypatch)
        else:
            assert importlib.util.find_spec(words[1]) is not None, f"no module {words[1]}"
        return
    if words[0].isupper():  # COMMAND stands for any
        return
    script, arguments = ROOT / words[0], list(words[1:])
    assert script.is_file(), f"no {words[0]}"
    accepts(script, arguments, monkeypatch)
    for flag, value in itertools.pairwise(arguments):
        if flag == "--config_file":
            assert (ROOT / value).is_file(), f"no {value}"
        if flag == "--train" and value.startswith("-"):  # flags of train.py in one word
            accepts(ROOT / "train.py", shlex.split(value), monkeypatch)


def check_bash(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`bash SCRIPT ARGUMENTS`: the script is there and knows the flags, or train.py does."""
    script, arguments = ROOT / words[0], list(words[1:])
    assert script.is_file(), f"no {words[0]}"
    if script.name in EXPERIMENTS:
        check_python(["-m", "experiments", EXPERIMENTS[script.name], *arguments], monkeypatch)
    elif script.name in TRAINS:
        accepts(ROOT / "train.py", arguments[TRAINS[script.name] :], monkeypatch)
    elif script.name != "test.sh":  # which takes pytest's
        text = script.read_text(encoding="utf-8")
        for flag in (word for word in arguments if word.startswith("--")):
            assert flag in text, f"{words[0]}: no {flag}"


def check_pip(words: Sequence[str]) -> None:
    """`pip install`: the extras of this project and the folders that are named exist."""
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    for word in words:
        if match := re.fullmatch(r"\.\[([\w,]+)\]", word):
            assert set(match[1].split(",")) <= set(extras), f"no extra {match[1]}"
        if word.startswith("submodules/"):
            assert (ROOT / word).is_dir(), f"no {word}"


def check(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One command; those of other programs are not looked at."""
    program, arguments = words[0].removeprefix(".venv/bin/"), list(words[1:])
    if program in ("python", "python3") and arguments[:2] == ["-m", "pip"]:
        check_pip(arguments[2:])
    elif program in ("python", "python3"):
        check_python(arguments, monkeypatch)
    elif program == "bash":
        check_bash(arguments, monkeypatch)
    elif program == "pip":
        check_pip(arguments)


@every_page
def test_links(page: Path) -> None:
    """Every link within the repository leads to a file, and to a heading of it."""
    for link in LINK.findall(prose(page)):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@every_page
def test_files_named(page: Path) -> None:
    """Every file that a page names in backticks by its path in the repository is there."""
    ours = "|".join(
        path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").is_file()
    )
    named = rf"`((?:{ours}|benchmarks|config|docs|scripts|submodules|tests)/[\w./-]+)`"
    for file in re.findall(named, prose(page)):
        assert (ROOT / file).exists() or (page.parent / file).exists(), f"no {file}"


@every_page
def test_commands(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command parses: as bash, and its flags by the command's own parser."""
    inline = [" ".join(command.split()) for command in INLINE_COMMAND.findall(prose(page))]
    for block in current(page) + inline:
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, f"{block}\n{checked.stderr}"
        for words in commands(block):
            check(words, monkeypatch)


@every_page
def test_commands_are_tagged(page: Path) -> None:
    """No command hides in a block of another kind, where nobody would check it."""
    for language in ("", "sh", "shell", "console", "text"):
        for block in blocks(page, language):
            assert not COMMAND.search(block), f"tag it bash:\n{block}"
    assert not re.search(r"^    (?:\.venv/bin/)?(?:python|bash|pip) ", prose(page), re.M)


@every_page
def test_python_blocks(page: Path) -> None:
    """Python is valid, and what it imports of this project is there."""
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.ImportFrom) or not (ROOT / str(node.module).split(".")[0]).is_dir():
                continue
            for alias in node.names:
                if not (ROOT / str(node.module).replace(".", "/") / f"{alias.name}.py").is_file():
                    module = importlib.import_module(str(node.module))
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def test_places_in_the_code() -> None:
    """Every `file: name` of the walks is there."""
    places = PLACE.findall(ARCHITECTURE.read_text(encoding="utf-8"))
    assert places
    for file, name in places:
        assert (ROOT / file).is_file(), f"no {file}"
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(?:def|class) {name}\b", text, re.M), f"{file} defines no {name}"


def test_picture_of_the_layers() -> None:
    """The picture has every package that there is, from the commands down, in the order that tests hold."""
    picture = blocks(ARCHITECTURE, "")[0]
    rows = [{name for name in row if (ROOT / name).is_dir()} for row in reversed(LAYERS)]
    places = [[picture.index(f" {name}/") for name in row] for row in rows if row]
    assert all(max(above) < min(below) for above, below in itertools.pairwise(places))


def test_walks_are_short() -> None:
    """Each question of the architecture is answered by five places at most."""
    walks = ARCHITECTURE.read_text(encoding="utf-8").partition("## Three walks")[2].partition("\n## ")[0]
    answers = re.split(r"^\*\*.+?\?\*\*", walks, flags=re.M)[1:]
    assert len(answers) == 3
    assert all(1 <= len(re.findall(r"^\d\. ", answer, re.M)) <= 5 for answer in answers)


def test_choices_of_the_paper() -> None:
    """The method's page names everything that the paper's configuration sets, and the value."""
    method = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    choices = method.partition("\n## Choices\n")[2].partition("\n## ")[0].replace("`", "")
    for key, value in json.loads((ROOT / "config/gradiseg/paper.json").read_text(encoding="utf-8")).items():
        said = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
        assert re.search(rf"\b{key} {said}\b", choices), f"paper.json sets {key} to {value}"


def test_documents_named_in_the_code() -> None:
    """A page that code, scripts or records refer to exists."""
    for path in files(".py", ".sh", ".json", ".toml", ".yml", ".h", ".cpp", ".cu"):
        for page in re.findall(r"\bdocs/[\w/]+\.md", path.read_text(encoding="utf-8", errors="replace")):
            assert (ROOT / page).is_file(), f"{name_of(path)} names {page}"


def test_every_command_is_in_use() -> None:
    """The page of daily use has every command of the root, and the architecture's picture too."""
    used = {words[1] for block in blocks(ROOT / "docs/usage.md", "bash") for words in commands(block)}
    for command in ROOT.glob("*.py"):
        assert command.name in used, command.name
        assert command.name in blocks(ARCHITECTURE, "")[0], command.name


def test_every_page_is_in_the_menu() -> None:
    """The site's menu has every page but the experiments, which their index has."""
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        assert f": {name_of(page)}\n" in menu, f"mkdocs.yml: no {name_of(page)} below nav"


def test_every_experiment_is_indexed() -> None:
    """A page of an experiment begins with question, verdict and record, and the index has it."""
    folder = ROOT / "docs/experiments"
    index = (folder / "index.md").read_text(encoding="utf-8")
    for page in folder.glob("*.md"):
        if page.name != "index.md":
            question, verdict, record = page.read_text(encoding="utf-8").split("\n\n")[:3]
            assert question.startswith("# ") and question.endswith("?"), page.name
            assert verdict.startswith("**Verdict.** "), page.name
            assert record.startswith("**Record.** "), page.name
            assert f"]({page.name})" in index, page.name
