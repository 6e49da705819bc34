"""Shape of the code base: imports run one way, no file names a place outside it, functions fit a screen."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A package may import itself and those of the rows before its own. Entry points and scripts come last, and
# nothing imports them. Rooms that are planned have their place already.
LAYERS = (
    {"utils"},
    {"pretrained"},
    {"arguments"},
    {"scene"},
    {"preparation", "gaussian_renderer"},
    {"gradiseg"},
    {"experiments"},
)
# The same within gradiseg/: first the paper, then what is added to it, then what is done with a trained run.
ROOMS = (
    {"classifier", "schedule"},
    {"igd", "la_knn"},
    {"objective"},
    {"repair"},
    {"votes"},
    {"labelled", "occupancy"},
    {"alone", "boundary"},
    {"checkpoint", "progress", "trained", "training"},
    {"finished"},
    {"selection"},
    {"editing"},
    {"evaluation", "export"},
    {"report", "viewer"},
)
SUBMODULES = {
    "diff_gaussian_rasterization": ROOT / "submodules/diff-gaussian-rasterization/src",
    "fused_losses": ROOT / "submodules/fused-losses/src",
    "simple_knn": ROOT / "submodules/simple-knn/src",
}
ENTRY_POINTS = tuple(sorted(ROOT.glob("*.py")))
SCRIPTS = tuple(sorted((ROOT / "scripts").glob("*.py")))
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
LIBRARY = tuple(sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")))
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


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, also inside functions and for the type checker alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports."""
    return {name.partition(".")[0] for name in imported_names(path)}


def module_of(path: Path, root: Path) -> str:
    """The dotted name of a source file below `root`."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def module_graph(paths: tuple[Path, ...], root: Path) -> dict[str, set[str]]:
    """Of every module those of `paths` that it imports; a name out of a module counts as that module."""
    modules = {module_of(path, root): path for path in paths}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for name in imported_names(path):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            graph[module] |= {name} - {"", module}
    return graph


def above(own: str, order: tuple[set[str], ...]) -> set[str]:
    """What `own` must not import: its row's other names, and all in later rows."""
    row = next(index for index, names in enumerate(order) if own in names)
    return set().union(*order[row:]) - {own}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of the body of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield node.name, (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_the_layers_are_there() -> None:
    """Guards the tests below against an empty glob."""
    assert len(ENTRY_POINTS) >= 4 and len(SCRIPTS) >= 2
    assert {"utils", "scene", "gradiseg"} < PACKAGES
    assert {path.name for path in SUBMODULE_SOURCES} >= {"__init__.py", "reference.py"}


def test_every_package_and_every_room_has_its_place() -> None:
    rooms = {path.stem for path in (ROOT / "gradiseg").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set().union(*LAYERS) >= PACKAGES
    assert set().union(*ROOMS) >= rooms - {"__init__", "__pycache__"}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_layer_imports_only_those_below(path: Path) -> None:
    forbidden = above(name_of(path).partition("/")[0], LAYERS)
    forbidden |= {*(entry.stem for entry in ENTRY_POINTS), "scripts", "tests"}
    assert forbidden.isdisjoint(imported(path))


def test_a_room_of_gradiseg_imports_only_those_below() -> None:
    paths = tuple(path for path in LIBRARY if path.is_relative_to(ROOT / "gradiseg"))
    for module, others in module_graph(paths, ROOT).items():
        if module != "gradiseg":
            found = {other.split(".")[1] for other in others if other != "gradiseg"}
            assert above(module.split(".")[1], ROOMS).isdisjoint(found), module


@pytest.mark.parametrize("folder", [ROOT, *SUBMODULES.values()], ids=name_of)
def test_imports_go_in_no_circle(folder: Path) -> None:
    found = (path for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi"))  # compiled: the stub
    paths = LIBRARY if folder == ROOT else tuple(found)
    try:
        TopologicalSorter(module_graph(paths, folder)).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("path", SUBMODULE_SOURCES, ids=name_of)
def test_a_submodule_imports_nothing_of_the_repository(path: Path) -> None:
    own = path.relative_to(ROOT / "submodules").parts[2]
    others = {*PACKAGES, *SUBMODULES, *(entry.stem for entry in ENTRY_POINTS), "scripts", "tests"} - {own}
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
