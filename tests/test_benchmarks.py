"""benchmarks/: the scripts run on the demo scene, report what they promise and refuse wrong results."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diff_gaussian_rasterization import instruction_set

from arguments import ModelParams
from benchmarks import alternate, bench_rasterizer, common, from_start
from scene.dataset_readers import read_scene
from scene.ply import export_3dgs_ply
from scene.views import SceneInfo
from tests.disc_scene import disc_model, write_scene
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
DEMO = str(ROOT / "data" / "demo")


def figures_of(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a benchmark writes with `--json`."""
    output = folder / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments, "--json", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(output.read_text())
    return figures


@pytest.fixture(scope="module")
def demo() -> SceneInfo:
    """The demo scene without its pixels."""
    return read_scene(ModelParams(source_path=DEMO, model_path=""))


def test_the_rasterizer_in_every_combination(tmp_path: Path) -> None:
    sizes, isas = ("40x30", "8"), sorted({instruction_set(), "baseline"})
    flags = ("--num_gaussians", "300", "--threads", "1", "2", "-r", *sizes, "--isa", *isas)
    figures = figures_of("bench_rasterizer.py", tmp_path, "--scene", DEMO, *flags)
    results = figures["results"]
    found = [(tuple(r["image"]), r["num_gaussians"], r["instruction_set"], r["threads"]) for r in results]
    images = ((40, 30), (20, 15))
    assert found == [(image, 300, isa, n) for image in images for isa in isas for n in (1, 2)]
    assert figures["reference"]["ratio_to_reference"] > 1
    assert {"error_float64", "error_float32"} <= set(figures["reference"])
    for result in results:
        assert result["ms"] == pytest.approx(sum(result["stages"].values()))
        assert result["points"] == "random subset" and result["peak_mb"] > 50
        assert min(result[name] for name in ("gflops", "gb_per_s", "blended_pairs_per_pixel")) > 0
        assert result["check"]["error_float64"] < 1e-9
        assert max(result.get("isa_errors", {"none": 0.0}).values()) < 1e-3
        assert ("isa_errors" in result) == (result["instruction_set"] != isas[0])
    assert all(r["speedup"] == 1 for r in results if r["threads"] == 1)


def test_a_training_step_at_the_start(tmp_path: Path) -> None:
    flags = ("-r", "8", "--num_gaussians", "1000", "--threads", "1", "--steps", "2")
    figures = figures_of("bench_train_step.py", tmp_path, "--scene", DEMO, *flags)
    assert figures["num_gaussians"] == 1000 and figures["image"] == [20, 15]
    assert figures["ms_per_step"] == pytest.approx(sum(figures["stages"].values()))
    assert set(figures["stages"]) == {"render", "losses", "backward", "densification", "optimizers"}
    assert figures["peak_mb"] > 50 and figures["ratio_to_reference"] > 1


def test_the_losses(tmp_path: Path) -> None:
    flags = ("--width", "24", "--height", "20", "--num_gaussians", "50", "--threads", "1", "--repeats", "1")
    figures = figures_of("bench_losses.py", tmp_path, *flags)
    assert [r["name"] for r in figures["results"]] == ["l1_ssim", "linear_cross_entropy", "adam"]
    assert all(r["ms"] > 0 and r["ratio_to_reference"] > 0 for r in figures["results"])


def test_a_wrong_result_is_not_timed(demo: SceneInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = bench_rasterizer.start(demo, 200)
    camera = bench_rasterizer.views(demo, "8")[0]
    sample = {"num_gaussians": 50, "pixels": 150}
    figures = common.compare(model, camera, **sample)
    assert figures["num_gaussians"] == 50 and figures["image"] == [14, 11]
    core = common.core
    monkeypatch.setattr(common, "core", lambda *args: (1.1 * core(*args)[0], core(*args)[1]))
    with pytest.raises(UserError, match="nothing was timed"):
        common.compare(model, camera, **sample)


def test_a_model_of_any_size_comes_from_the_points_of_the_scene(demo: SceneInfo) -> None:
    points = torch.from_numpy(demo.point_cloud.points).float()
    whole, n = {tuple(point) for point in points.tolist()}, len(points)
    for count, told in ((100, "subset"), (n, "the scene's"), (n + 50, "scattered")):
        model, origin = bench_rasterizer.start(demo, count)
        found = {tuple(point) for point in model.get_xyz.detach().tolist()}
        assert told in origin and model.num_gaussians == count
        assert found <= whole if count <= n else whole < found


def test_outlines_of_the_demo_stay_as_its_objects_are_small(tmp_path: Path) -> None:
    figures = figures_of("bench_outlines.py", tmp_path, "--scene", DEMO, "-r", "1")
    noisy, exact = figures["object_mask -r 1"], figures["object_mask_exact -r 1"]
    assert noisy["worst"] > -0.005 and exact["worst"] > -0.005
    assert noisy["rms_after"] <= noisy["rms_before"] and exact["rms_before"] < 0.05
    assert noisy["pairs"] and noisy["objects"].keys() == exact["objects"].keys()


def test_two_builds_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[str] = []

    class Build:
        def __init__(self, build: str, options: Any) -> None:
            self.name = build

        def turn(self) -> dict[str, float]:
            calls.append(self.name)
            slow = 1 + len(calls) // 2  # the machine gets slower, for both alike
            return {"cpu_ms": slow * {"old": 10.0, "new": 8.0}[self.name]}

        def end(self) -> None:
            calls.append("end")

    monkeypatch.setattr(alternate, "Build", Build)
    given = ["--before", "old", "--after", "new", "--scene", DEMO, "--turns", "3"]
    alternate.main([*given, "--json", str(tmp_path / "out.json")])
    assert calls == ["old", "new", "new", "old", "old", "new", "end", "end"]
    figures = json.loads((tmp_path / "out.json").read_text())
    assert 0.5 < figures["ratio"]["cpu_ms"] < 1.1 and figures["median"]["cpu_ms"]["before"] >= 10


def test_a_build_is_a_training_of_the_tree() -> None:
    options = SimpleNamespace(scene=DEMO, resolution=8, threads=1, steps=1, num_gaussians=500, model=None)
    build = alternate.Build(f"{ROOT}:{':'.join(sys.path)}", options)  # type: ignore[arg-type]
    for _ in range(2):
        figures = build.turn()
        assert 0 < figures["fastest_ms"] <= figures["wall_ms"]
    build.end()


def test_a_build_that_fails_says_why() -> None:
    options = SimpleNamespace(scene="nowhere", resolution=8, threads=1, steps=1, num_gaussians=5, model=None)
    build = alternate.Build(f"{ROOT}:{':'.join(sys.path)}", options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nowhere"):
        build.turn()


@pytest.mark.parametrize(("loss", "fails"), [(0.0, False), (0.1, False), (0.5, True)])
def test_a_build_that_loses_more_than_seeds_explain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loss: float, fails: bool
) -> None:
    def score(build: str, seed: int, options: Any) -> dict[str, float]:
        return {"psnr": 27.0 + (-1) ** seed * 0.2 - (loss if build == "new" else 0.0), "num_gaussians": 5}

    monkeypatch.setattr(from_start, "score", score)
    given = ["--before", "old", "--after", "new", "--scene", DEMO, "--json", str(tmp_path / "out.json")]
    if fails:
        with pytest.raises(UserError, match="loses"):
            from_start.main(given)
    else:
        from_start.main(given)
    figures = json.loads((tmp_path / "out.json").read_text())["psnr"]
    assert figures["difference"] == pytest.approx(-loss)
    assert figures["standard_error"] == pytest.approx(0.2 * (8 / 7) ** 0.5 * 0.5)


def test_a_seed_is_trained_from_the_start_with_the_tree() -> None:
    options = SimpleNamespace(scene=DEMO, iterations=2, threads=1, train="--train_split -r 8")
    build = f"{ROOT}:{':'.join(sys.path)}"
    first, again, other = (from_start.score(build, seed, options) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert first == again != other
    options.scene = "nowhere"
    with pytest.raises(UserError, match="nowhere"):
        from_start.score(build, 0, options)  # type: ignore[arg-type]


def test_a_finished_splat_with_and_without_refinement(tmp_path: Path) -> None:
    write_scene(tmp_path / "discs")
    export_3dgs_ply(tmp_path / "splat.ply", disc_model().params)
    flags = ("--ply", str(tmp_path / "splat.ply"), "--scene", str(tmp_path / "discs"), "--steps", "1")
    figures = figures_of("bench_finished.py", tmp_path, *flags)
    assert figures["votes"]["steps"] == 0 and figures["votes"]["psnr"] == figures["votes"]["psnr_before"]
    for name in ("votes", "refined"):
        assert figures[name]["rules"]["argmax"]["miou"] > 0.9 and figures[name]["peak_mb"] > 50
        assert figures[name]["extracted"]["votes"]["iou"] > 0.9
