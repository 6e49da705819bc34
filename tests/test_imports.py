"""Shape of the code base: imports run one way, no file names a place outside it, functions fit a screen."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Every layer may import those before it. Entry points and scripts come last, and nothing imports them.
LAYERS = (
    "utils",
    "pretrained",
    "arguments",
    "scene",
    "preparation",
    "gaussian_renderer",
    "gradiseg",
    "experiments",
)
SUBMODULES = {
    "diff_gaussian_rasterization": ROOT / "submodules/diff-gaussian-rasterization/src",
    "fused_losses": ROOT / "submodules/fused-losses/src",
    "simple_knn": ROOT / "submodules/simple-knn/src",
}
ENTRY_POINTS = tuple(sorted(ROOT.glob("*.py")))
SCRIPTS = tuple(sorted((ROOT / "scripts").glob("*.py")))
LIBRARY = tuple(sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")))
SUBMODULE_SOURCES = tuple(sorted(path for folder in SUBMODULES.values() for path in folder.rglob("*.py")))
PRODUCT = (*ENTRY_POINTS, *SCRIPTS, *LIBRARY, *SUBMODULE_SOURCES)
TEXT_SUFFIXES = {".cpp", ".h", ".json", ".md", ".pyi", ".sh", ".toml", ".txt", ".yaml", ".yml"}
TEXTS = tuple(
    sorted(
        path
        for folder in ("config", "docs", "scripts", "submodules")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in TEXT_SUFFIXES and "build" not in path.relative_to(ROOT).parts
    )
) + tuple(path for path in ROOT.iterdir() if path.suffix in TEXT_SUFFIXES)

# Folders of one machine. A path that starts elsewhere is the user's, or relative to the repository.
OUTSIDE = re.compile(r"(?<![\w.}<])/(?:work|tmp|home|root|Users|mnt)\b|\.\./shared\b")

# Lines of a body, without signature and docstring. The style asks for 10 to 30; more fit no screen.
LONGEST_FUNCTION = 50


def name_of(path: Path) -> str:
    """A file's path within the repository, for the names of tests."""
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of the body of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield node.name, (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_the_layers_are_there() -> None:
    """Guards the tests below against an empty glob."""
    assert len(ENTRY_POINTS) >= 4 and len(SCRIPTS) >= 2
    assert {name_of(path).partition("/")[0] for path in LIBRARY} == set(LAYERS)
    assert {path.name for path in SUBMODULE_SOURCES} >= {"__init__.py", "reference.py"}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_layer_imports_only_those_below(path: Path) -> None:
    own = LAYERS.index(name_of(path).partition("/")[0])
    above = {*LAYERS[own + 1 :], *(entry.stem for entry in ENTRY_POINTS), "scripts", "tests"}
    assert above.isdisjoint(imported(path))


@pytest.mark.parametrize("path", SUBMODULE_SOURCES, ids=name_of)
def test_a_submodule_imports_nothing_of_the_repository(path: Path) -> None:
    own = path.relative_to(ROOT / "submodules").parts[2]
    others = {*LAYERS, *SUBMODULES, *(entry.stem for entry in ENTRY_POINTS), "scripts", "tests"} - {own}
    assert others.isdisjoint(imported(path))


@pytest.mark.parametrize("path", [*ENTRY_POINTS, *SCRIPTS], ids=name_of)
def test_entry_points_do_not_import_each_other(path: Path) -> None:
    assert {*(entry.stem for entry in ENTRY_POINTS), "scripts", "tests"}.isdisjoint(imported(path))


@pytest.mark.parametrize("path", sorted({*PRODUCT, *TEXTS}), ids=name_of)
def test_no_file_names_a_place_outside_the_repository(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return  # not a text
    found = OUTSIDE.search(text)
    assert found is None, f"line {text.count(chr(10), 0, found.start()) + 1}: {found.group()}"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_functions_fit_a_screen(path: Path) -> None:
    too_long = {name: length for name, length in functions(path) if length > LONGEST_FUNCTION}
    assert not too_long
