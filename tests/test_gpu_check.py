"""scripts/gpu_check.sh and benchmarks/bench_cuda.py as far as they run without a GPU."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks import bench_cuda, common
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts/gpu_check.sh"
CPU = torch.device("cpu")
SIZE = (48, 32)


def gpu_check(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The script with this Python on the CPU."""
    command = ["bash", str(SCRIPT), "--out", str(out), "--device", "cpu", "--quick"]
    settings = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *flags], env=settings, capture_output=True, text=True, check=False)


def test_the_script_reports_and_times(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, "--parts", "report bench sanitize")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: entry["status"] for name, entry in summary.items()} == dict.fromkeys(
        ("report", "bench", "sanitize_memcheck", "sanitize_racecheck", "sanitize_synccheck"), 0
    )
    assert "CUDA part" in (tmp_path / "report.log").read_text()
    bench = json.loads((tmp_path / "bench.json").read_text())
    assert [entry["channels"] for entry in bench["results"]] == [3, 19]
    assert bench["results"][1]["ms"]["step"] > 0
    assert any(ms > 0 for ms in bench["results"][1]["ms"]["kernels"].values())


def test_a_part_that_fails_is_noted_and_the_others_run(tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    done = gpu_check(tmp_path / "out", "--parts", "report bench", "--original", str(missing))
    assert done.returncode == 1
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["bench"]["status"] != 0 and summary["report"]["status"] == 0
    assert str(missing) in (tmp_path / "out/bench.log").read_text()


def test_wheels_are_installed_without_what_they_need(tmp_path: Path) -> None:
    """Without a network pip must not ask for what is there: --target hides the installed packages from it."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "stub_for_test-1.0.dist-info/"
    files = {
        "stub_for_test.py": "",
        f"{info}METADATA": "Metadata-Version: 2.1\nName: stub-for-test\nVersion: 1.0\nRequires-Dist: numpy\n",
        f"{info}WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}RECORD": "",
    }
    with zipfile.ZipFile(wheels / "stub_for_test-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    work = tmp_path / "work"
    done = gpu_check(tmp_path / "out", "--parts", "packages", "--wheels", str(wheels), "--work", str(work))
    assert (work / "site/stub_for_test.py").is_file(), done.stdout + done.stderr


def test_what_does_not_fit_the_limit_is_skipped_and_said(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, "--parts", "bench report", "--limit", "1", "--work", str(tmp_path / "work"))
    assert done.returncode == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["bench"]["status"] == 124


def test_the_sanitizers_get_a_few_tests() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith(("race_", "bound_"))]
    script = "\n".join([*lines, 'echo "$bound_tests"'])
    names = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/submodules", "-m", "gpu"]
    done = subprocess.run([*command, "-k", names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 10 <= sum("::" in line for line in done.stdout.splitlines()) <= 12, done.stdout


def test_a_wrong_flag_shows_the_usage(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, "--prats", "bench")
    assert done.returncode == 2 and "--parts" in done.stderr


def test_a_difference_from_the_cpu_core_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_cuda, "COMPARED", 50)
    assert max(bench_cuda.compare_with_cpu(SIZE, CPU).values()) == 0
    calls = iter([1.0, 1.01])
    exact = common.differentiate
    monkeypatch.setattr(
        common, "differentiate", lambda *call: [t * factor for factor in [next(calls)] for t in exact(*call)]
    )
    with pytest.raises(UserError, match="nothing was timed"):
        bench_cuda.compare_with_cpu(SIZE, CPU)


def test_the_gaussians_of_the_benchmark_are_in_view() -> None:
    model = bench_cuda.random_model(200, *SIZE, CPU)
    color, objects = common.core(
        common.rasterizer_arguments(model), common.settings_of(bench_cuda.view(*SIZE, CPU), 3)
    )
    assert color.shape == (3, 32, 48) and objects.shape == (16, 32, 48)
    assert (color.sum(0) > 0).float().mean() > 0.3
    projected = model.get_xyz[:, :2] / model.get_xyz[:, 2:] * SIZE[0] / bench_cuda.FIELD_OF_VIEW
    assert (projected.abs() <= torch.tensor(SIZE) / 2 + 1e-3).all()
