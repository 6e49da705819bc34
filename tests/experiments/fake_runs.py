"""For tests: runs whose commands are a few lines of Python, in the place of train.py and its like."""

import time
from pathlib import Path

from experiments.run import Run, Step

# Trains `iterations` of a hundredth of a second each. Knows --resume, --overwrite, --checkpoint_interval and
# SIGTERM, and leaves in `weights` the iterations that were done by which call.
TRAIN = """
import json, os, pathlib, signal, sys, time
folder, iterations = pathlib.Path(sys.argv[1]), int(sys.argv[2])
interval = int(sys.argv[sys.argv.index("--checkpoint_interval") + 1])
done = []
if "--resume" in sys.argv:
    newest = max(folder.glob("chkpnt*.pth"), key=lambda path: int(path.stem[6:]))
    done = json.loads(newest.read_text())
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
print("started", flush=True)
while len(done) < iterations and not told:
    time.sleep(0.01)
    done.append(os.getpid())
    if len(done) % interval == 0 or told:
        (folder / f"chkpnt{len(done)}.pth").write_text(json.dumps(done))
if told:
    (folder / f"chkpnt{len(done)}.pth").write_text(json.dumps(done))
    sys.exit(2)
(folder / "training_summary.json").write_text(json.dumps({"num_gaussians": 7}))
(folder / "weights").write_text(json.dumps(done))
"""


def training_run(folder: Path, iterations: int = 3, interval: int = 1000, **about: object) -> Run:
    """A run that trains for `iterations` hundredths of a second."""
    command = ("-c", TRAIN, str(folder), str(iterations))
    step = Step("training", (command,), "training_summary.json", checkpoint_interval=interval)
    return Run(folder.parent, folder, (step,), about)


def run_of(folder: Path, **steps: str) -> Run:
    """A run of steps by name; each is Python that finds its folder in `folder` and makes the file NAME."""
    folder.parent.mkdir(parents=True, exist_ok=True)  # the scene
    start = f"import os, pathlib, sys; folder = pathlib.Path({str(folder)!r})\n"
    return Run(
        folder.parent,
        folder,
        tuple(
            Step(name, (("-c", f"{start}{code}\n(folder / {name!r}).touch()"),), name)
            for name, code in steps.items()
        ),
    )


def wait_for(path: Path, text: str = "", seconds: float = 20) -> None:
    """Until a file is there and holds a text."""
    end = time.monotonic() + seconds
    while not (path.is_file() and text in path.read_text(errors="replace")):
        assert time.monotonic() < end, f"{path}: no {text!r} within {seconds} s"
        time.sleep(0.02)
