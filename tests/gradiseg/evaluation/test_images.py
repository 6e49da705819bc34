"""Reconstruction scores of saved pictures."""

import math
from pathlib import Path

import pytest
import torch

from gradiseg.evaluation.images import image_metrics, score_run
from scene.run_folder import RunFolder
from utils.errors import UserError
from utils.image import save_png


def write_pictures(folder: Path, error: int, views: int = 2) -> None:
    """Photographs of one grey and renders that are off by `error` steps of 255."""
    for view in range(views):
        save_png(folder / "gt" / f"{view:05d}.png", torch.full((3, 16, 20), 100, dtype=torch.uint8))
        save_png(
            folder / "renders" / f"{view:05d}.png", torch.full((3, 16, 20), 100 + error, dtype=torch.uint8)
        )


def test_psnr_is_that_of_the_known_error(tmp_path: Path) -> None:
    write_pictures(tmp_path / "test" / "ours_30", 4)
    write_pictures(tmp_path / "train" / "ours_30", 1)
    record = score_run(RunFolder(tmp_path), image_metrics(None), per_view=True)
    assert record["psnr"] == pytest.approx(20 * math.log10(255 / 4), abs=1e-4)
    assert 0 < record["ssim"] < 1
    assert (record["split"], record["iteration"], record["views"]) == ("test", 30, 2)
    assert set(record["per_view"]) == {"00000.png", "00001.png"}
    assert "lpips" not in record


def test_lpips_joins_the_scores_where_it_exists(tmp_path: Path) -> None:
    write_pictures(tmp_path / "test" / "ours_30", 4)
    assert score_run(RunFolder(tmp_path), image_metrics(lambda image, target: 0.25))["lpips"] == 0.25


def test_the_latest_iteration_counts_as_a_number_and_training_views_stand_in(tmp_path: Path) -> None:
    for iteration in (900, 7000, 30000):
        write_pictures(tmp_path / "train" / f"ours_{iteration}", 4)
    write_pictures(tmp_path / "train" / "ours_30000_text", 4)
    assert score_run(RunFolder(tmp_path), image_metrics(None))["iteration"] == 30000
    assert score_run(RunFolder(tmp_path), image_metrics(None), iteration=900)["split"] == "train"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"render\.py"):
        score_run(RunFolder(tmp_path), image_metrics(None))
    write_pictures(tmp_path / "test" / "ours_30", 4)
    (tmp_path / "test" / "ours_30" / "gt" / "00001.png").unlink()
    with pytest.raises(UserError, match=r"gt/00001\.png"):
        score_run(RunFolder(tmp_path), image_metrics(None))
