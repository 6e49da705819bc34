"""A splat without identities, segmented by segment_splat.py: scores, seconds, memory, what its pictures lose.

    python train.py -s data/demo -m output/colour --config_file config/gradiseg/train.json --train_split \
        --schedule_scale 0.13 --densify_grad_threshold 6e-4 --max_gaussians 50000 \
        --identity_lambda_val 0 --reg3d_lambda_val 0 --no_repair_masks --no_igd
    python export.py -m output/colour
    python benchmarks/bench_finished.py --ply output/colour/exports/scene.ply --scene data/demo \
        --json benchmarks/results/finished_demo.json

`--ply` is a splat of the scene whose training saw no masks, as above. `votes` is it with `--no_refine`,
`refined` with the defaults; each in a process of its own. `--trained RUN` adds a run that learned identities
from the same masks. `-r` as the splat was trained. `cpu_seconds` are what counts where other
work runs beside.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

from arguments import OF_SAVED_MODEL, DeviceParams, ModelParams, parse_with_run
from benchmarks.machine import alone, environment
from gradiseg.evaluation.extracted import evaluate_extracted
from gradiseg.evaluation.lerf_mask import evaluate_run
from gradiseg.finished.splat import fit
from gradiseg.trained import load_run
from segment_splat import SegmentParams
from segment_splat import main as segment_splat
from utils.errors import run_command
from utils.json_files import write_json
from utils.memory import peak_memory_mb


def segmented(ply: str, scene: str, flags: Sequence[str]) -> dict[str, Any]:
    """The record of segment_splat.py with some flags, the process's peak of memory, and the scores."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        segment_splat(["--ply", ply, "-s", scene, "-m", folder, "--train_split", "--quiet", *flags])
        took = {"cpu_seconds": time.process_time() - start, "peak_mb": round(peak_memory_mb(), 1)}
        record = json.loads(Path(folder, "segmented.json").read_text(encoding="utf-8"))
        return record | took | scores(folder)


def scores(run_folder: str) -> dict[str, Any]:
    """Masks by every rule, cut-out objects by every selection, PSNR of the test views."""
    flags = ["-m", run_folder]
    model, device = parse_with_run((ModelParams, DeviceParams), flags, without=OF_SAVED_MODEL)
    run = load_run(model, device)
    source = Path(model.source_path)
    masks = evaluate_run(run, source, model.object_path)
    extracted = evaluate_extracted(run, source, model.object_path)
    return {
        "rules": masks["rules"],
        "extracted": extracted["selections"],
        "test_psnr": fit(run.gaussians, run.test_cameras, run.background),
        "gaussians": run.gaussians.num_gaussians,
    }


def _name(word: str) -> str:
    """A word of the command without the folders of this machine."""
    return Path(word).name if "/" in word else word


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints a summary, writes all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ply", required=True, help="splat without identities")
    parser.add_argument("--scene", required=True, help="its scene, with masks and test masks")
    parser.add_argument("--trained", help="run that learned identities")
    parser.add_argument("--steps", type=int, default=SegmentParams().steps, help="steps of a round")
    parser.add_argument("-r", "--resolution", default="-1", help="as of train.py")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(argv)
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/bench_finished.py", *map(_name, argv or sys.argv[1:])]),
        **environment(),
    }
    for name, flags in (("votes", ["--no_refine"]), ("refined", ["--steps", str(args.steps)])):
        flags = ["-r", args.resolution, *flags]
        record[name] = alone(segmented, args.ply, args.scene, flags)
    if args.trained:
        record["trained"] = scores(args.trained)
    for name in ("votes", "refined", "trained"):
        if name in record:
            print(name, json.dumps(record[name]))
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    run_command(main)
