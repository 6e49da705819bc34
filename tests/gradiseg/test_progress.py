"""The records that a run leaves while it goes on."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from gradiseg.objective import Losses
from gradiseg.progress import LOG_INTERVAL, Progress, peak_memory_mb
from scene.run_folder import RunFolder


def losses(iteration: int) -> Losses:
    """Terms whose sum tells the iteration; L_3d every 20."""
    term = torch.tensor(0.5) if iteration % 20 == 0 else None
    return Losses(torch.tensor(float(iteration), requires_grad=True), torch.tensor(0.25), term)


def started(folder: Path, first: int, last: int) -> Progress:
    """A run that goes on after `first`."""
    progress = Progress(RunFolder(folder), first, last)
    progress.start()
    return progress


def finish(progress: Progress, iteration: int, num_gaussians: int, config: dict[str, Any]) -> None:
    """The end of a run."""
    progress.close(iteration)
    progress.save_summary(num_gaussians, config)


def advance(progress: Progress, first: int, last: int) -> None:
    """Iterations first + 1 to last."""
    for iteration in range(first + 1, last + 1):
        progress.update(iteration, losses(iteration), 100 + iteration)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """training_log.json."""
    return json.loads((folder / "training_log.json").read_text())


def read_events(folder: Path) -> EventAccumulator:
    """Everything that TensorBoard would show."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def test_the_log_has_every_tenth_iteration(tmp_path: Path) -> None:
    progress = started(tmp_path, 0, 45)
    advance(progress, 0, 45)
    finish(progress, 45, 145, {"seed": 3})
    log = read_log(tmp_path)
    assert [entry["iteration"] for entry in log] == [10, 20, 30, 40]
    assert log[0] == {
        "iteration": 10,
        "loss": 10.25,
        "l_rgb": 10.0,
        "l_2d": 0.25,
        "l_3d": None,
        "l_boundary": None,
        "num_gaussians": 110,
    }
    assert log[1]["l_3d"] == 0.5 and log[1]["loss"] == 20.75


def test_the_summary_says_how_the_run_went(tmp_path: Path) -> None:
    progress = started(tmp_path, 20, 45)
    advance(progress, 20, 45)
    progress.close(45)
    progress.seconds = 50.0  # for 25 iterations: those before it resumed took another's time
    progress.save_summary(145, {"seed": 3})
    summary = json.loads((tmp_path / "training_summary.json").read_text())
    assert (summary["iterations"], summary["num_gaussians"], summary["config"]) == (45, 145, {"seed": 3})
    assert (summary["seconds"], summary["seconds_per_iteration"]) == (50.0, 2.0)
    assert 0 < summary["peak_memory_mb"] <= peak_memory_mb() + 1
    assert 20 < peak_memory_mb() < 1e6  # MiB, whatever the platform counts in


@pytest.mark.parametrize("stop", [20, 23, 29])
def test_a_resumed_run_has_the_log_of_one_that_was_not_stopped(tmp_path: Path, stop: int) -> None:
    whole = started(tmp_path / "whole", 0, 60)
    advance(whole, 0, 60)
    finish(whole, 60, 160, {})
    stopped = started(tmp_path / "parts", 0, 60)
    advance(stopped, 0, stop)
    stopped.save_log()
    advance(stopped, stop, 45)  # went on after its last checkpoint, and crashed
    stopped.save_log()
    resumed = started(tmp_path / "parts", stop, 60)
    advance(resumed, stop, 60)
    finish(resumed, 60, 160, {})
    assert (tmp_path / "parts/training_log.json").read_bytes() == (
        tmp_path / "whole/training_log.json"
    ).read_bytes()


def test_a_new_run_does_not_inherit_a_log(tmp_path: Path) -> None:
    for last in (40, 20):
        progress = started(tmp_path, 0, last)
        advance(progress, 0, last)
        finish(progress, last, 0, {})
    assert [entry["iteration"] for entry in read_log(tmp_path)] == [10, 20]


def test_tensorboard_shows_the_scalars_and_pictures(tmp_path: Path) -> None:
    progress = started(tmp_path, 0, 20)
    advance(progress, 0, 20)
    progress.test_scores(20, {"psnr": 21.5}, {"frame_1": torch.rand(3, 6, 8)})
    finish(progress, 20, 120, {})
    events = read_events(tmp_path)
    names = {"train/loss", "train/l_rgb", "train/l_2d", "train/l_3d", "train/num_gaussians", "test/psnr"}
    assert set(events.Tags()["scalars"]) == names
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 10.25), (20, 20.75)]
    assert [event.step for event in events.Scalars("train/l_3d")] == [20]
    (picture,) = events.Images("test/frame_1")
    assert (picture.width, picture.height) == (8, 6)


def test_the_bar_tells_loss_and_gaussians_unless_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for quiet in (True, False):
        caplog.set_level(logging.WARNING if quiet else logging.INFO, "gradiseg")
        progress = started(tmp_path, 0, 2 * LOG_INTERVAL)
        advance(progress, 0, 2 * LOG_INTERVAL)
        progress.test_scores(20, {"psnr": 21.5, "ssim": 0.75}, {})
        finish(progress, 20, 120, {})
        shown = capsys.readouterr()
        assert "[20] psnr 21.5000, ssim 0.7500" in shown.out  # results are told in any case
        assert ("Training" in shown.err) != quiet
        assert ("gaussians=120" in shown.err and "20/20" in shown.err) != quiet
