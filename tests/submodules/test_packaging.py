"""What the packages ask of their builder is said once and the same everywhere; what they install is whole."""

import re
import sys
from itertools import chain
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="tomllib came with Python 3.11")

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent for path in (ROOT / "submodules").glob("*/pyproject.toml"))
PYTHON_PACKAGES = sorted(path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")


def project(folder: Path) -> dict:
    """The contents of a folder's pyproject.toml."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def lower_bound(requirements: list[str], name: str) -> str:
    """The version after `name>=` among requirements."""
    (found,) = (match[1] for line in requirements if (match := re.fullmatch(rf"{name}>=([\d.]+)", line)))
    return found


def test_the_packages_ask_for_the_same_builder() -> None:
    assert len(PACKAGES) == 3
    builders = [project(folder)["build-system"] for folder in PACKAGES]
    assert builders[0] == builders[1] == builders[2]
    assert not any("torch" in requirement for requirement in builders[0]["requires"])


def test_floors_agree_between_the_packages_and_the_program() -> None:
    root = project(ROOT)["project"]
    floors = {lower_bound(project(folder)["project"]["dependencies"], "torch") for folder in PACKAGES}
    assert floors == {lower_bound(root["dependencies"], "torch")}
    nanobind = {lower_bound(project(folder)["build-system"]["requires"], "nanobind") for folder in PACKAGES}
    assert nanobind == {lower_bound(root["optional-dependencies"]["dev"], "nanobind")}
    assert {project(folder)["project"]["requires-python"] for folder in PACKAGES} == {root["requires-python"]}


def test_conda_brings_the_cmake_that_the_packages_need() -> None:
    def versions(path: Path, pattern: str) -> set[str]:
        return set(re.findall(pattern, path.read_text(encoding="utf-8")))

    lists = [folder / "CMakeLists.txt" for folder in PACKAGES]
    needed = {*chain(*(versions(path, r"cmake_minimum_required\(VERSION ([\d.]+)\)") for path in lists))}
    assert len(needed) == 1 and needed == versions(ROOT / "environment.yml", r"cmake>=([\d.]+)")


def test_every_package_says_that_it_has_types() -> None:
    assert all(list(folder.glob("src/*/py.typed")) for folder in PACKAGES)
    assert all((folder / "py.typed").is_file() for folder in PYTHON_PACKAGES)


def test_every_package_of_the_program_is_installed() -> None:
    included = project(ROOT)["tool"]["setuptools"]["packages"]["find"]["include"]
    assert included == [f"{folder.name}*" for folder in PYTHON_PACKAGES]


def test_the_container_is_made_by_the_scripts_that_make_it_everywhere() -> None:
    """One Dockerfile for both bases, whose own steps are the system's packages and no others."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    runs = [line for line in lines if line.startswith("RUN ")]
    assert len(runs) == 2 and "apt-get" in runs[0] and "pip" not in runs[0]
    assert runs[1] == "RUN bash scripts/setup_env.sh"
    assert [line for line in lines if line.startswith("CMD")] == ['CMD ["bash", "scripts/quickstart.sh"]']
