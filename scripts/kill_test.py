"""Kills trainings at random moments, or fills their disk, resumes them, and compares with an unbroken run.

    python scripts/kill_test.py --kills 50 --disks 20 --json benchmarks/results/kill_test.json

Every moment is a training of its own: it starts, is cut off (SIGKILL, or a full tmpfs that is then freed),
and is resumed until it ends. It must end with the PLY and the classifier of the unbroken run, bit for bit,
and at the moment of the cut every file under a final name must be whole. The full disk needs root (it mounts
a tmpfs); without, that part is left out, and the record says so.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip

import torch
import torch._dynamo  # which the optimizer would load in every child, for seconds

import gradiseg.training  # noqa: F401 - loaded here once, not in every child
from scene.ply import read_ply
from utils.json_files import write_json

ROOT = Path(__file__).resolve().parents[1]
TRAINING = (
    "--config_file config/gradiseg/train.json --train_split -r 8 --schedule_scale 0.002 "
    "--checkpoint_interval 6 --max_gaussians 2000 --no_correct_outlines --threads 1 --quiet"
)
RESULTS = ("point_cloud.ply", "classifier.pth")
DISK_MB = 280  # of the tmpfs: 200 for the check of free space, the rest for the run
SHORTEST_MB = 1  # left when the disk fills
TRIES = 20  # resumes until a run must have ended
FORK = multiprocessing.get_context("fork")
Child = multiprocessing.context.ForkProcess
Cut = Callable[["Bench", Child, Path], str]


class Bench:
    """A scene, the folder in which runs are made, and the hashes of the unbroken run.

    A training is a child of this process, which has loaded everything, so that most moments are of its work.
    """

    def __init__(self, scene: Path, work: Path) -> None:
        self.scene, self.work = scene, work
        started = time.perf_counter()
        self.wait(self.train(work / "whole"))
        self.seconds = time.perf_counter() - started
        self.checkpoints = len(list((work / "whole").glob("chkpnt*.pth")))
        self.wanted = hashes(work / "whole")

    def train(self, run: Path, *extra: str) -> Child:
        """Start a training."""
        arguments = ["train.py", "-s", str(self.scene), "-m", str(run), *TRAINING.split(), *extra]
        child = FORK.Process(target=train_here, args=(arguments, self.said))
        child.start()
        return child

    @property
    def said(self) -> Path:
        """What the latest training wrote on stderr."""
        return self.work / "stderr"

    def wait(self, child: Child) -> tuple[int, str]:
        """Exit status and the last line of what it said."""
        child.join()
        said = self.said.read_text(errors="replace").strip()
        if "Traceback" in said:
            raise AssertionError(f"a traceback:\n{said}")
        return int(child.exitcode or 0), said.splitlines()[-1] if said else ""

    def finish(self, run: Path) -> int:
        """Resume until the run ends; the number of starts that took."""
        for start in range(1, TRIES + 1):
            has_checkpoint = any(run.glob("chkpnt*.pth"))
            status, said = self.wait(self.train(run, "--resume" if has_checkpoint else "--overwrite"))
            if status == 0:
                return start
            if status != 2:
                raise AssertionError(f"status {status}: {said}")
        raise AssertionError(f"not ended after {TRIES} starts: {said}")

    def moment(self, run: Path, cut: Cut) -> dict[str, Any]:
        """One training that is cut off, checked, resumed and compared."""
        how = cut(self, self.train(run), run)
        whole = check_files(run)
        starts = self.finish(run)
        same = hashes(run) == self.wanted
        shutil.rmtree(run)
        return {"cut": how, "whole_files": whole, "starts": starts, "same_bytes": same}


def hashes(run: Path) -> dict[str, str]:
    """SHA-256 of what the run has made."""
    paths = {name: next(run.glob(f"point_cloud/iteration_*/{name}")) for name in RESULTS}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def check_files(run: Path) -> int:
    """Read every file under a final name; the number of files. Raises where one is not whole."""
    readers: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".pth": lambda path: torch.load(path, weights_only=True),
        ".ply": lambda path: path.name == "input.ply" or read_ply(path),
    }
    paths = [path for path in run.rglob("*") if path.is_file() and path.name[0] != "."]
    for path in paths:
        if path.suffix in readers:
            readers[path.suffix](path)
    return len(paths)


@dataclass(frozen=True)
class Moment:
    """Some time after so many checkpoints: where in the run that is does not depend on the machine's load."""

    checkpoints: int
    seconds: float

    @classmethod
    def draw(cls, generator: random.Random, bench: "Bench") -> "Moment":
        """One of the whole run."""
        checkpoints = generator.randrange(bench.checkpoints)
        return cls(checkpoints, generator.uniform(0, 2 * bench.seconds / bench.checkpoints))

    def wait(self, child: Child, run: Path) -> None:
        """Until it has come, or the run has ended."""
        while child.is_alive() and len(list(run.glob("chkpnt*.pth"))) < self.checkpoints:
            time.sleep(0.005)
        child.join(self.seconds)


def kill_at(moment: Moment) -> Cut:
    """SIGKILL, also while the run still reads, or saves."""

    def cut(bench: Bench, child: Child, run: Path) -> str:
        moment.wait(child, run)
        if not child.is_alive():
            return "ended before"
        child.kill()
        child.join()
        return f"killed, {len(list(run.glob('chkpnt*.pth')))} checkpoints"

    return cut


def fill_at(moment: Moment, spare: int) -> Cut:
    """Fill the run's disk but for `spare` bytes; free it when the run has ended."""

    def cut(bench: Bench, child: Child, run: Path) -> str:
        moment.wait(child, run)
        filler = run.parent / "filler"
        with suppress(OSError), open(filler, "wb", buffering=0) as file:
            while (free := shutil.disk_usage(run.parent).free) > spare:
                file.write(bytes(min(2**20, free - spare)))
        status, last = bench.wait(child)
        filler.unlink()
        if status not in (0, 2) or (status and "the disk is full" not in last and "MB free" not in last):
            raise AssertionError(f"status {status}: {last}")
        return (
            f"status {status}: {last.replace(str(run), 'RUN').replace(str(run.parent), 'DISK')}"
            if status
            else "ended before"
        )

    return cut


def train_here(arguments: list[str], said: Path) -> None:
    """A training in this process, a child; what it says goes to a file."""
    with open(said, "wb", buffering=0) as file, open(os.devnull, "wb") as nothing:
        os.dup2(file.fileno(), sys.stderr.fileno())
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    sys.argv = arguments
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def run_disks(bench: Bench, disks: int, generator: random.Random) -> list[dict[str, Any]] | str:
    """The full disk; or why it was left out."""
    mount = bench.work / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(mount)],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        return f"left out: no tmpfs can be mounted here ({made.stderr.strip()})"
    try:
        return [
            told(
                bench.moment(
                    mount / "run",
                    fill_at(Moment.draw(generator, bench), generator.randrange(SHORTEST_MB * 2**20)),
                )
            )
            for _ in range(disks)
        ]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def told(moment: dict[str, Any]) -> dict[str, Any]:
    """Print a moment."""
    print(moment, flush=True)
    return moment


def main() -> None:
    """Both parts, their record, and status 1 where a moment did not end right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-s", "--scene", type=Path, default=ROOT / "data" / "demo")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--disks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.scene, Path(folder))
        print(f"unbroken: {bench.seconds:.1f} s", flush=True)
        kills = [
            told(bench.moment(Path(folder, "run"), kill_at(Moment.draw(generator, bench))))
            for _ in range(options.kills)
        ]
        disks = run_disks(bench, options.disks, generator) if options.disks else "not asked for"
    moments = kills + (disks if isinstance(disks, list) else [])
    record = {
        "command": f"python scripts/kill_test.py --kills {options.kills} --disks {options.disks} "
        f"--seed {options.seed}",
        "training": TRAINING,
        "seconds_unbroken": round(bench.seconds, 1),
        "moments": len(moments),
        "ended_with_the_same_bytes": sum(moment["same_bytes"] for moment in moments),
        "killed": kills,
        "disk_full": disks,
    }
    if options.json:
        write_json(options.json, record)
    print(f"{record['ended_with_the_same_bytes']} of {len(moments)} ended with the bytes of the unbroken run")
    sys.exit(record["ended_with_the_same_bytes"] != len(moments))


if __name__ == "__main__":
    main()
