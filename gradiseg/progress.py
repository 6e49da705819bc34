"""What a run tells while it goes on: the bar, TensorBoard, and the records that reports are made of."""

import time
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from gradiseg.objective import Losses
from utils.json_files import read_json, write_json
from utils.memory import peak_memory_mb

LOG_INTERVAL = 10  # iterations between entries of training_log.json and between updates of the bar
TRAINING_LOG, TRAINING_SUMMARY = "training_log.json", "training_summary.json"
SMOOTHING = 0.6  # weight of the past in the loss that the bar shows; the log has the raw values


def _value(loss: Tensor | None) -> float | None:
    return None if loss is None else float(loss.detach())


class Progress:
    """Bar, TensorBoard events and `training_log.json` of one run that starts after iteration `first`."""

    def __init__(self, model_path: str, first: int, last: int, quiet: bool) -> None:
        self.folder, self.first = Path(model_path), first
        log = self.folder / TRAINING_LOG
        past = read_json(log) if first and log.is_file() else []
        self.entries: list[dict[str, Any]] = [e for e in past if e["iteration"] <= first]
        self.writer = SummaryWriter(model_path, purge_step=first + 1 if first else None)
        self.bar = tqdm(total=last, initial=first, desc="Training", disable=quiet, dynamic_ncols=True)
        self.started = time.perf_counter()
        self._smoothed: float | None = None

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
        tqdm.write(message)

    def test_scores(self, iteration: int, scores: dict[str, float], pictures: dict[str, Tensor]) -> None:
        """Scores of the test views and pictures (3,H,W) in [0,1] for TensorBoard."""
        for name, value in scores.items():
            self.writer.add_scalar(f"test/{name}", value, iteration)
        for name, picture in pictures.items():
            self.writer.add_image(f"test/{name}", picture, iteration)
        self.tell(f"[{iteration}] " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))

    def save_log(self) -> None:
        """Write `training_log.json` up to now."""
        write_json(self.folder / TRAINING_LOG, self.entries)

    def finish(self, iteration: int, num_gaussians: int, config: dict[str, Any]) -> None:
        """Close the bar and the events; write the log and `training_summary.json`."""
        seconds = time.perf_counter() - self.started
        self.bar.update(iteration - self.bar.n)
        self.bar.close()
        self.writer.close()
        self.save_log()
        summary = {
            "iterations": iteration,
            "seconds": round(seconds, 3),
            "seconds_per_iteration": seconds / max(iteration - self.first, 1),
            "num_gaussians": num_gaussians,
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "config": config,
        }
        write_json(self.folder / TRAINING_SUMMARY, summary)
