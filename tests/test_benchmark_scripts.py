"""scripts/lerf_mask.sh and mipnerf360.sh: what they run, what they skip, and one scene from end to end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradiseg.evaluation.text import LERF_PROMPTS
from scripts.make_tables import INDOORS, OUTDOORS

ROOT = Path(__file__).resolve().parents[1]
SHORT = ("--iterations", "20", "--densify_from_iter", "5", "-r", "4", "--threads", "1")

# Stands for Python: notes the command and leaves the file that the next call looks for.
RECORDER = """#!/usr/bin/env bash
echo "$*" >>"$COMMANDS"
declare -A files=([train.py]=training_summary [metrics.py]=results [scripts/eval_lerf_mask.py]=eval_lerf_mask)
file=${files[$1]:-other}
while (($#)); do
  [[ $1 == -m ]] && mkdir -p "$2" && touch "$2/$file.json"
  shift
done
"""


def run_script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script of this repository, with this Python."""
    settings = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    command = ["bash", str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, env=settings, capture_output=True, text=True)


@pytest.fixture
def recorder(tmp_path: Path) -> dict[str, str]:
    """Environment in which commands are noted, not run."""
    path = tmp_path / "python"
    path.write_text(RECORDER)
    path.chmod(0o755)
    (tmp_path / "commands").touch()
    return {"PYTHON": str(path), "COMMANDS": str(tmp_path / "commands")}


def test_mipnerf360_trains_every_scene_at_its_published_size(
    tmp_path: Path, recorder: dict[str, str]
) -> None:
    done = run_script("mipnerf360.sh", str(tmp_path), str(tmp_path / "out"), "--seed", "7", **recorder)
    assert done.returncode == 0, done.stderr
    commands = Path(recorder["COMMANDS"]).read_text().splitlines()
    trained = [line for line in commands if line.startswith("train.py")]
    assert len(trained) == 2 * 2 * 9
    for scenes, images in ((OUTDOORS, "images_4"), (INDOORS, "images_2")):
        for scene in scenes:
            for folder, expected in (("published", images), ("8", "images_8")):
                line = next(line for line in trained if f"{folder}/gradiseg/{scene} " in line)
                assert f"-i {expected} --eval --seed 7" in line and "gradiseg/train.json" in line
    assert sum("--lpips_from_zero" in line for line in commands) == len(trained)
    assert commands[-1].startswith("scripts/make_tables.py --mipnerf360")


def test_what_is_done_is_not_done_again(tmp_path: Path, recorder: dict[str, str]) -> None:
    for _ in range(2):
        arguments = ["lerf_mask.sh", str(tmp_path), str(tmp_path / "out")]
        assert run_script(*arguments, SCENES="ramen", CONFIGS="baseline", **recorder).returncode == 0
    commands = Path(recorder["COMMANDS"]).read_text().splitlines()
    assert [line.split()[0] for line in commands].count("train.py") == 1
    assert [line.split()[0] for line in commands].count("scripts/make_tables.py") == 2


def test_a_stopped_training_goes_on_and_a_broken_one_starts_anew(
    tmp_path: Path, recorder: dict[str, str]
) -> None:
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "chkpnt10.pth").touch()
    for name in ("stopped", "broken"):
        run_script("run_scene.sh", str(tmp_path), str(tmp_path / name), "igd_from_18000", **recorder)
    stopped, broken = (
        line for line in Path(recorder["COMMANDS"]).read_text().splitlines() if line.startswith("train.py")
    )
    assert "--resume" in stopped and "--overwrite" in broken
    phases = (
        "--densify_until_iter 18000 --igd_from_iter 18000 --igd_until_iter 21000 --la_knn_from_iter 21000"
    )
    assert phases in stopped


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
