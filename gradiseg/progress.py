"""What a run tells while it goes on: the bar, TensorBoard, and the records that reports are made of."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from gradiseg.objective import Losses
from scene.run_folder import RunFolder
from utils.json_files import read_json, write_json
from utils.log import bar
from utils.memory import peak_memory_mb

LOG_INTERVAL = 10  # iterations between entries of training_log.json and between updates of the bar
SMOOTHING = 0.6  # weight of the past in the loss that the bar shows; the log has the raw values


def gpu_peak_memory_mb() -> float | None:
    """Most memory that tensors have had on the GPU, MiB; None without one."""
    return round(torch.cuda.max_memory_allocated() / 2**20, 1) if torch.cuda.is_initialized() else None


def _value(loss: Tensor | None) -> float | None:
    return None if loss is None else float(loss.detach())


class Progress:
    """Bar, TensorBoard events and `training_log.json` of a run that goes on after iteration `first`.

    Making one reads the log of the part before; `start` is the first to write.

    Raises: UserError where that log cannot be read.
    """

    def __init__(self, folder: RunFolder, first: int, last: int) -> None:
        self.folder, self.first, self.last = folder, first, last
        past = read_json(folder.training_log) if first and folder.training_log.is_file() else []
        self.entries: list[dict[str, Any]] = [entry for entry in past if entry["iteration"] <= first]
        self._smoothed: float | None = None

    def start(self) -> None:
        """Open the bar and the events; the clock runs."""
        purge_step = self.first + 1 if self.first else None
        self.writer = SummaryWriter(str(self.folder.path), purge_step=purge_step)
        self.bar = bar(what="Training", total=self.last, leave=True, initial=self.first, dynamic_ncols=True)
        self.started = time.perf_counter()

    def update(self, iteration: int, losses: Losses, num_gaussians: int) -> None:
        """After every iteration."""
        if iteration % LOG_INTERVAL == 0:
            self._record(iteration, losses, num_gaussians)

    def _record(self, iteration: int, losses: Losses, num_gaussians: int) -> None:
        loss = float(losses.total.detach())
        entry = {
            "iteration": iteration,
            "loss": loss,
            "l_rgb": _value(losses.rgb),
            "l_2d": _value(losses.identity_2d),
            "l_3d": _value(losses.identity_3d),  # None in the iterations that do not evaluate it
            "l_boundary": _value(losses.boundary),
            "num_gaussians": num_gaussians,
        }
        self.entries.append(entry)
        for name, value in entry.items():
            if name != "iteration" and value is not None:
                self.writer.add_scalar(f"train/{name}", value, iteration)
        self._smoothed = (
            loss if self._smoothed is None else SMOOTHING * self._smoothed + (1 - SMOOTHING) * loss
        )
        self.bar.set_postfix(loss=f"{self._smoothed:.4f}", gaussians=num_gaussians, refresh=False)
        self.bar.update(iteration - self.bar.n)

    def tell(self, message: str) -> None:
        """One line above the bar, also where the bar is off."""
        self.bar.write(message)

    def test_scores(self, iteration: int, scores: dict[str, float], pictures: dict[str, Tensor]) -> None:
        """Scores of the test views and pictures (3,H,W) in [0,1] for TensorBoard."""
        for name, value in scores.items():
            self.writer.add_scalar(f"test/{name}", value, iteration)
        for name, picture in pictures.items():
            self.writer.add_image(f"test/{name}", picture, iteration)
        self.tell(f"[{iteration}] " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))

    def save_log(self) -> None:
        """Write `training_log.json` up to now."""
        write_json(self.folder.training_log, self.entries)

    def close(self, iteration: int) -> None:
        """Close the bar and the events after the last iteration; write the log."""
        self.seconds = time.perf_counter() - self.started
        self.bar.update(iteration - self.bar.n)
        self.bar.close()
        self.writer.close()
        self.save_log()

    def save_summary(self, num_gaussians: int, config: dict[str, Any]) -> None:
        """Write `training_summary.json`, which says that the run is finished; it must be closed."""
        summary = {
            "iterations": self.last,
            "seconds": round(self.seconds, 3),
            "seconds_per_iteration": self.seconds / max(self.last - self.first, 1),
            "num_gaussians": num_gaussians,
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "gpu_peak_memory_mb": gpu_peak_memory_mb(),
            "config": config,
        }
        write_json(self.folder.training_summary, summary)
