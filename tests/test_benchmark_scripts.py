"""scripts/lerf_mask.sh, mipnerf360.sh, run_scene.sh: how they are called, one scene from end to end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradiseg.evaluation.text import LERF_PROMPTS

ROOT = Path(__file__).resolve().parents[1]
SHORT = ("--iterations", "20", "--densify_from_iter", "5", "-r", "4", "--threads", "1")


def run_script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script of this repository, with this Python."""
    settings = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    command = ["bash", str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, env=settings, capture_output=True, text=True)


def test_scripts_ask_for_two_folders() -> None:
    for name in ("lerf_mask.sh", "mipnerf360.sh", "run_scene.sh"):
        done = run_script(name, "alone")
        assert done.returncode == 2 and "usage: bash scripts/" in done.stderr


@pytest.fixture
def figurines(tmp_path: Path) -> Path:
    """Folder with the demo scene under the name and prompts of a scene of LERF-Mask; beside it its marks."""
    prompts = json.loads(LERF_PROMPTS.read_text())["figurines"]
    demo = ROOT / "data" / "demo"
    names = dict(
        zip(sorted(path.stem for path in (demo / "test_mask" / "0").iterdir()), prompts, strict=False)
    )
    folder = tmp_path / "data" / "figurines"
    ignored = shutil.ignore_patterns("test_mask", "object_mask_exact", "prompts.json")
    shutil.copytree(demo, folder, ignore=ignored)
    for path in (demo / "test_mask").glob("*/*.png"):
        if path.stem in names:
            target = folder / "test_mask" / path.parent.name / f"{names[path.stem]}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (tmp_path / "marks" / "figurines").mkdir(parents=True)
    for prompt in prompts:
        shutil.copy(folder / "test_mask" / "0" / f"{prompt}.png", tmp_path / "marks" / "figurines")
    return folder.parent


def test_a_scene_of_lerf_mask_from_end_to_end(figurines: Path, tmp_path: Path) -> None:
    out, marks = tmp_path / "out", str(tmp_path / "marks")
    settings = {"SCENES": "figurines", "CONFIGS": "gradiseg", "TEXT_MASKS": marks, "METRICS": "--lpips none"}
    done = run_script("lerf_mask.sh", str(figurines), str(out), *SHORT, **settings)
    assert done.returncode == 0, done.stderr
    run = out / "gradiseg" / "figurines"
    oracle, text = (json.loads((run / f"eval_{name}.json").read_text()) for name in ("lerf_mask", "text"))
    assert set(oracle["per_prompt"]) == set(text["per_prompt"]) == set(text["ids"])
    tables = json.loads((out / "tables.json").read_text())
    assert tables["lerf_text"]["GradiSeg, this code"]["figurines"][0] == pytest.approx(100 * text["miou"])
    assert tables["lerf_ids"]["GradiSeg, this code"]["figurines"][0] == pytest.approx(100 * oracle["miou"])
    assert "mean" not in tables["lerf_text"]["GradiSeg, this code"]
