"""How the packages are built for CUDA, what they say about it, and when a GPU is refused."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diff_gaussian_rasterization import availability

SUBMODULES = Path(__file__).resolve().parents[2] / "submodules"
BUILT = SimpleNamespace(CUDA=True, PROBLEM="", NVCC="13.0", ARCHITECTURES="80 90+PTX")


@pytest.mark.parametrize(
    "name", ["cuda.cmake", "csrc/cuda/launch.h", "src/*/availability.py", "src/*/_build.pyi"]
)
def test_the_packages_hold_the_same_file(name: str) -> None:
    files = sorted(SUBMODULES.glob(f"*/{name}"))
    assert len(files) == 3
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("name", ["isa.cmake", "csrc/isa_dispatch.h", "csrc/tile_epilogue.h"])
def test_the_packages_with_cpu_kernels_hold_the_same_file(name: str) -> None:
    files = [SUBMODULES / package / name for package in ("diff-gaussian-rasterization", "fused-losses")]
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_header_of_the_rasterizer_stands_alone(device: str) -> None:
    csrc = SUBMODULES / "diff-gaussian-rasterization/csrc"
    headers = sorted((csrc / device).glob("*.h")) + (sorted(csrc.glob("gs/*.h")) if device == "cpu" else [])
    assert len(headers) > 7
    command = ["g++", "-std=c++17", "-fsyntax-only", "-w", "-x", "c++", "-I", str(csrc)]
    if device == "cuda":
        command += ["-I", str(SUBMODULES.parent / "tests/cuda_shim"), "-include", "cuda_runtime.h"]
    done = subprocess.run([*command, *map(str, headers)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(None in map(shutil.which, ("g++", "nm")), reason="no g++ or no nm")
@pytest.mark.parametrize(
    ("source", "macro", "namespace"),
    [
        ("diff-gaussian-rasterization/csrc/cpu/core.cpp", "GS_ISA", "gs::"),
        ("fused-losses/csrc/kernels.cpp", "FUSED_LOSSES_ISA", "fused_losses::"),
    ],
)
def test_no_function_is_shared_between_instruction_sets(
    source: str, macro: str, namespace: str, tmp_path: Path
) -> None:
    """Of weak ones the linker keeps one, perhaps compiled for what the processor lacks; -O0 shows all."""
    path, object_file = SUBMODULES / source, tmp_path / "kernels.o"
    csrc = SUBMODULES / source.split("/")[0] / "csrc"
    options = ["-std=c++17", "-O0", "-w", f"-D{macro}=baseline", "-I", str(csrc)]
    subprocess.run(["g++", *options, "-c", str(path), "-o", str(object_file)], check=True)
    symbols = subprocess.run(
        ["nm", "-C", str(object_file)], capture_output=True, text=True, check=True
    ).stdout
    assert f" {namespace}" in symbols
    assert not [line for line in symbols.splitlines() if f" W {namespace}" in line]


# What a build covers.


def test_machine_code_serves_its_major_version_and_ptx_all_later_ones() -> None:
    served = {"75": (7, 5), "80": (8, 0), "89": (8, 9), "90": (9, 0), "103": (10, 3), "120": (12, 0)}
    assert not availability.is_covered(served["75"], "80 90+PTX")
    assert all(availability.is_covered(served[name], "80 90+PTX") for name in served if name != "75")
    assert [name for name in served if availability.is_covered(served[name], "80 90")] == ["80", "89", "90"]
    assert [name for name in served if availability.is_covered(served[name], "89")] == ["89"]
    assert all(availability.is_covered(capability, "75+PTX") for capability in served.values())


# Why a GPU is refused: the first thing that is missing.


def problem_on(
    monkeypatch: pytest.MonkeyPatch,
    build: SimpleNamespace = BUILT,
    torch_cuda: str | None = "12.6",
    gpu: bool = True,
    driver: int = 13_000,
    capability: tuple[int, int] = (9, 0),
) -> str | None:
    """`cuda_problem()` on such a machine."""
    monkeypatch.setattr(availability, "_build", build)
    monkeypatch.setattr(availability, "driver_version", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
    return availability._problem.__wrapped__(None)


def test_a_machine_that_has_everything_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem_on(monkeypatch) is None


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    unbuilt = SimpleNamespace(CUDA=False, PROBLEM="no nvcc was found", NVCC="", ARCHITECTURES="")
    named = {
        "no nvcc was found": problem_on(monkeypatch, build=unbuilt),
        "a build without CUDA": problem_on(monkeypatch, torch_cuda=None),
        "nvidia-smi": problem_on(monkeypatch, gpu=False),
        "the driver supports CUDA 12.4": problem_on(monkeypatch, driver=12_040),
        "GRADISEG_CUDA_ARCHITECTURES=75": problem_on(monkeypatch, capability=(7, 5)),
    }
    assert all(problem is not None and phrase in problem for phrase, problem in named.items()), named


def test_the_report_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "diff_gaussian_rasterization"
    foreign.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    runpy.run_module("diff_gaussian_rasterization.__main__", run_name="__main__")
    printed = capsys.readouterr().out
    lines = dict(line.split(":", 1) for line in printed.splitlines()[1:])
    assert lines["CUDA part"].strip() == availability.describe_build()
    assert torch.__version__ in lines["PyTorch"]
    assert ("do not work" in lines["tensors on a GPU"]) == (availability.cuda_problem() is not None)
    assert f"{foreign}, another package of this name" in printed


# The switch and the architectures, as CMake reads them.


def in_cmake(tmp_path: Path, script: str, **environment: str) -> str:
    """What a script prints that includes cuda.cmake."""
    path = tmp_path / "script.cmake"
    path.write_text(f'include("{SUBMODULES / "simple-knn" / "cuda.cmake"}")\n{script}\n')
    command = ["cmake", "-P", str(path)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRADISEG")}
    done = subprocess.run(
        command, env=inherited | environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return done.stderr.strip()  # where message(NOTICE) goes


needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake is not on the path")


@needs_cmake
@pytest.mark.parametrize(
    ("given", "expected"), [({}, "auto"), ({"GRADISEG_CUDA": "off"}, "off"), ({"GRADISEG_CUDA": "ON"}, "on")]
)
def test_the_switch_comes_from_the_environment(tmp_path: Path, given: dict[str, str], expected: str) -> None:
    assert in_cmake(tmp_path, 'option_of(GRADISEG_CUDA auto is)\nmessage("${is}")', **given) == expected


@needs_cmake
def test_architectures_become_flags(tmp_path: Path) -> None:
    script = 'expand_architectures(nvcc "80 90+ptx" list flags)\nmessage("${list}|${flags}")'
    names, flags = in_cmake(tmp_path, script).split("|")
    assert names == "80 90+PTX"
    wanted = [("compute_80", "sm_80"), ("compute_90", "sm_90"), ("compute_90", "compute_90")]
    assert flags.split(";") == [f"-gencode=arch={virtual},code={real}" for virtual, real in wanted]


@needs_cmake
def test_an_nvcc_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('x.h: error: unsupported GNU version!')\n")
    nvcc.chmod(0o755)
    script = f'try_nvcc("{nvcc}" "-O3" version problem)\nmessage("${{problem}}")'
    assert in_cmake(tmp_path, script) == "x.h: error: unsupported GNU version!"
