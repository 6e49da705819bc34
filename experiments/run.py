"""A run as data: the commands that make and score it, and by which file each step is known to be done.

Naming contract: a `Run` is a scene trained under one configuration and seed, in a folder of its own. Its
`steps` follow each other; a step is done when the file it makes is there and the record says that the same
commands made it. The record is `run.json` in the folder, the output of all commands `run.log` beside it.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from arguments import (
    DeviceParams,
    GradiSegParams,
    ModelParams,
    OptimizationParams,
    RepairParams,
    RunParams,
    final_iteration,
    parse,
)
from experiments.configurations import ROOT, configuration
from experiments.lock import owner_of
from utils.errors import UserError
from utils.json_files import read_json, write_json

TRAINING = (ModelParams, DeviceParams, OptimizationParams, GradiSegParams, RepairParams, RunParams)
CHECKPOINTS = 10  # of a training whose flags ask for none; a run that is cut off loses a tenth of it at most


@dataclass(frozen=True)
class Step:
    """Commands below the repository's root, without `python`, and the file that says they are done."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    makes: str  # in the run's folder
    needs: str = ""  # in the scene's folder; where it is missing the step is left out
    optional: bool = False  # the run is done without it
    checkpoint_interval: int = 0  # of a training, in iterations: it starts with --overwrite or --resume
    keeps_checkpoints: bool = False  # its flags ask for them, so they are results

    @property
    def lines(self) -> list[str]:
        """The commands as one types them."""
        return [shlex.join(["python", *command]) for command in self.commands]


@dataclass(frozen=True)
class Run:
    """One run of an experiment; `about` says what it is (configuration, seed) in words of the tables."""

    scene: Path
    folder: Path
    steps: tuple[Step, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Output of all commands of all attempts."""
        return self.folder / "run.log"

    @property
    def lock(self) -> Path:
        """Who works on the run now."""
        return self.folder / "run.lock"

    def record(self) -> dict[str, Any]:
        """What `run.json` holds; without one, what the folder holds counts as made by this run."""
        path = self.folder / "run.json"
        if path.is_file():
            contents: dict[str, Any] = read_json(path)
            return contents
        made = {"started": "unknown", "started_at": 0.0, "ended": "unknown"}
        found = [
            step for step in self.steps if step.checkpoint_interval or (self.folder / step.makes).exists()
        ]
        return {"steps": {step.name: {"commands": step.lines, **made} for step in found}}

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        write_json(self.folder / "run.json", record)

    def forget(self) -> None:
        """Let nothing count as done, so that the run is made again from its start.

        Raises: UserError where a worker holds it.
        """
        if held := owner_of(self.lock):
            raise UserError(f"{self.folder}: {held[0].host} works on it now. Stop that run first.")
        if self.folder.exists():
            self.write_record({"steps": {}})

    def open_steps(self) -> list[Step]:
        """Steps from the first one that is not done."""
        known = self.record()["steps"]
        wanted = [  # a scene may lie on the disk of the machine alone that has the step in its record
            step
            for step in self.steps
            if not step.needs or step.name in known or (self.scene / step.needs).exists()
        ]
        for index, step in enumerate(wanted):
            made = known.get(step.name, {})
            same = made.get("commands") == step.lines and "ended" in made
            if not (same and (self.folder / step.makes).is_file()):
                return wanted[index:]
        return []

    def scores(self) -> dict[str, Any]:
        """All that is known of the run: what it is, its scores and size, where and how it was made."""
        result = {"scene": self.scene.name, **self.about}
        for file, keys in COLLECTED.items():
            path = self.folder / file
            contents = read_json(path) if path.is_file() else {}
            result |= {name: contents[key] for name, key in keys.items() if contents.get(key) is not None}
        record = self.record()
        result |= {key: record[key] for key in ("attempts", "peak_memory_mb") if key in record}
        return result | {"commands": [line for step in self.steps for line in step.lines]}

    def to_json(self) -> str:
        """The run as text, for another process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Run":
        """The run of `to_json`."""
        values = json.loads(text)
        steps = tuple(
            Step(**{**step, "commands": tuple(map(tuple, step["commands"]))}) for step in values.pop("steps")
        )
        scene, folder = Path(values.pop("scene")), Path(values.pop("folder"))
        return cls(scene=scene, folder=folder, steps=steps, **values)


# File in the run's folder -> name in `Run.scores` and key in the file.
COLLECTED = {
    "training_summary.json": {
        "num_gaussians": "num_gaussians",
        "iterations": "iterations",
        "seconds": "seconds",
        "gpu_peak_memory_mb": "gpu_peak_memory_mb",
    },
    "results.json": {"psnr": "psnr", "ssim": "ssim", "lpips": "lpips"},
    "eval_lerf_mask.json": {"rules": "rules"},
    "eval_extracted.json": {"extracted": "selections", "impurity": "impurity", "hidden": "hidden"},
    "eval_text.json": {"rules_by_words": "rules"},
}


def training(
    scene: Path,
    folder: Path,
    config: str,
    flags: Sequence[str] = (),
    *,
    seed: int | None = None,
    render: Sequence[str] = ("--skip_train",),
    metrics: Sequence[str] = (),
    text: Sequence[str] | None = None,
) -> Run:
    """The run of a user: train.py, render.py, metrics.py, and scores of masks and objects with truth.

    Args:
        config: see `configuration`; its flags win over `flags`.
        flags: of train.py; its device is that of the other commands, too.
        render, metrics: flags of these commands.
        text: flags of the choice of ids by words; None = ids are chosen by the best IoU alone.
    Raises: UserError for a configuration or flag that train.py would refuse.
    """
    file, of_config = configuration(config)
    options = (*flags, *of_config, *(() if seed is None else ("--seed", str(seed))))
    command = ("train.py", "-s", str(scene), "-m", str(folder), "--config_file", file, *options)
    device, interval, asked = _checkpoints(("--config_file", str(ROOT / file), *options))
    run = ("-m", str(folder), *(() if device == "auto" else ("--device", device)))
    masks = ("scripts/eval_lerf_mask.py", *run, "--quiet")
    objects = ("scripts/eval_extracted.py", *run, "--quiet")
    steps = [
        Step(
            "training",
            (command,),
            "training_summary.json",
            checkpoint_interval=interval,
            keeps_checkpoints=asked,
        ),
        Step("pictures", (("render.py", *run, *render), ("metrics.py", *run, *metrics)), "results.json"),
        Step("masks", (masks,), "eval_lerf_mask.json", needs="test_mask"),
        Step("objects", (objects,), "eval_extracted.json", needs="test_mask"),
    ]
    if text is not None:
        by_words = (*masks, "--json", str(folder / "eval_text.json"), "--text", *text)
        steps.append(Step("words", (by_words,), "eval_text.json", needs="test_mask", optional=True))
    return Run(scene, folder, tuple(steps), {"config": config, "seed": seed or 0})


def _checkpoints(options: Sequence[str]) -> tuple[str, int, bool]:
    """Of a training: its device, iterations between checkpoints, whether the flags ask for any."""
    _, pipe, opt, _, _, run = parse(TRAINING, options, prog="train.py")
    asked = bool(run.checkpoint_interval or run.checkpoint_iterations)
    last = final_iteration(opt.iterations, opt.schedule_scale)
    return pipe.device, run.checkpoint_interval or max(1, last // CHECKPOINTS), asked
