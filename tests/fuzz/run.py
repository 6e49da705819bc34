"""The long run of the fuzzers.

    nice python tests/fuzz/run.py --executions 100000 --json benchmarks/results/fuzz.json

Goes on after a finding, keeps the first file of each kind in `--keep`, and ends with status 1 if there are
any.
"""

import argparse
import platform
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import PIL
import torch

from tests.fuzz.targets import Target, targets
from tests.fuzz.test_readers import damaged
from utils.json_files import write_json

MEASURED_EVERY = 50  # executions: following every allocation takes ten times as long
MEMORY = 12 * 2**30  # bytes of address space beyond the start's: a forged count fails, not the machine


def memory_disk() -> str | None:
    """A disk in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def run(target: Target, executions: int, seed: int, keep: Path) -> dict[str, Any]:
    """Executions of one reader, and its findings by exception and place."""
    generator, findings = random.Random(f"{seed} {target.name}"), dict[str, int]()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=memory_disk()) as folder:
        for case in target.cases:  # loads modules, which are not the file's memory
            target.execute(Path(folder), case, measure=False)
        for index in range(executions):
            case = damaged(target, generator.randint)
            try:
                target.execute(Path(folder), case, measure=index % MEASURED_EVERY == 0)
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                kind = (
                    f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:80]}"
                )
                findings[kind] = findings.get(kind, 0) + 1
                if findings[kind] == 1:
                    where = keep / f"{target.name.replace(' ', '_')}_{len(findings)}"
                    for name, content in case.items():
                        (where / name).parent.mkdir(parents=True, exist_ok=True)
                        (where / name).write_bytes(content)
    return {"executions": executions, "seconds": round(time.perf_counter() - started), "findings": findings}


def main() -> None:
    """Run every reader, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of readers, as tests/fuzz/targets.py has them")
    parser.add_argument(
        "--keep", type=Path, default=Path("output/fuzz"), help="folder of the findings' files"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    record: dict[str, Any] = {
        "command": "python tests/fuzz/run.py --executions N --seed S",
        "seed": options.seed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "readers": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for target in targets(Path(folder)):
            if options.only and target.name not in options.only:
                continue
            found = run(target, options.executions, options.seed, options.keep)
            record["readers"][target.name] = found
            print(target.name, found, flush=True)
            if options.json:
                write_json(options.json, record)
    sys.exit(any(found["findings"] for found in record["readers"].values()))


if __name__ == "__main__":
    main()
