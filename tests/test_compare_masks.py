"""scripts/compare_masks.py: what a panel shows, and which rows are chosen."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradiseg.evaluation.masks import list_truth, write_mask
from scripts import compare_masks
from utils.errors import UserError

SIZE = 40


def square(left: int) -> np.ndarray:
    """A mask (SIZE, SIZE) of a square of 12 pixels."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:22, left : left + 12] = True
    return mask


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Two test views; the cup is easy, run `b` misses half of the ball in view 1."""
    (tmp_path / "a/test/ours_7/gt").mkdir(parents=True)
    for view in range(2):
        Image.new("RGB", (SIZE, SIZE), (100 * view, 0, 0)).save(tmp_path / f"a/test/ours_7/gt/{view:05d}.png")
    for run, moved in (("a", 0), ("b", 6)):
        (tmp_path / run / "point_cloud/iteration_7").mkdir(parents=True)
        (tmp_path / run / "point_cloud/iteration_7/point_cloud.ply").touch()
        for view in range(2):
            for prompt in ("ball", "cup"):
                write_mask(tmp_path / f"test_mask/{view}/{prompt}.png", square(8))
                shift = moved if (view, prompt) == (1, "ball") else 0
                write_mask(
                    tmp_path / run / f"test/ours_7_text/test_mask/{view}/{prompt}.png", square(8 + shift)
                )
    return tmp_path


def test_rows_are_those_on_which_the_runs_differ(scene: Path) -> None:
    rows = compare_masks.most_different(list_truth(scene / "test_mask"), [scene / "a", scene / "b"], 2)
    assert [(mask.prompt, mask.view) for mask in rows] == [("ball", 1), ("cup", 1)]


def test_colours_say_right_too_much_and_missing() -> None:
    photograph = Image.new("RGB", (SIZE, SIZE))
    true, mask = square(8), square(11)
    _, panel = compare_masks.panels(photograph, true, [mask])
    left, top, right, _ = compare_masks.crop_of(true)
    scale = compare_masks.CELL / (right - left)

    def color(column: int) -> tuple[int, ...]:
        return panel.getpixel((int((column + 0.5 - left) * scale), int((15.5 - top) * scale)))  # type: ignore

    for column, expected in ((9, compare_masks.MISSED), (16, compare_masks.RIGHT), (20, compare_masks.EXTRA)):
        assert np.argmax(color(column)) == np.argmax(expected)
    assert color(6) == (0, 0, 0)


def test_the_sheet_has_a_row_for_each_prompt_and_a_column_for_each_run(scene: Path) -> None:
    out = scene / "crops.png"
    compare_masks.main(["-s", str(scene), "--runs", str(scene / "a"), str(scene / "b"), "--out", str(out)])
    with Image.open(out) as sheet:
        assert sheet.size == (3 * compare_masks.CELL, 2 * compare_masks.CELL)


def test_a_missing_mask_counts_as_empty_and_an_unscored_run_is_named(scene: Path) -> None:
    mask = list_truth(scene / "test_mask")[0]
    (scene / "a/test/ours_7_text/test_mask/0/ball.png").unlink()
    assert not compare_masks.predicted(scene / "a", mask).any()
    (scene / "c/point_cloud/iteration_7").mkdir(parents=True)
    (scene / "c/point_cloud/iteration_7/point_cloud.ply").touch()
    with pytest.raises(UserError, match=r"eval_lerf_mask\.py"):
        compare_masks.predicted(scene / "c", mask)


def test_views_that_do_not_show_an_object_are_left_out(scene: Path) -> None:
    arguments = [
        "-s",
        str(scene),
        "--runs",
        str(scene / "a"),
        str(scene / "b"),
        "--out",
        str(scene / "o.png"),
    ]
    for view in range(2):
        write_mask(scene / f"test_mask/{view}/cup.png", np.zeros((SIZE, SIZE), bool))
    compare_masks.main(arguments)
    with Image.open(scene / "o.png") as sheet:
        assert sheet.size == (3 * compare_masks.CELL, compare_masks.CELL)
    for view in range(2):
        write_mask(scene / f"test_mask/{view}/ball.png", np.zeros((SIZE, SIZE), bool))
    with pytest.raises(UserError, match="every true mask there is empty"):
        compare_masks.main(arguments)


def test_photographs_are_those_that_render_kept(scene: Path) -> None:
    colors = [np.asarray(compare_masks.photograph_of(scene / "a", k, (8, 8)))[0, 0, 0] for k in range(2)]
    assert colors == [0, 100]
    with pytest.raises(UserError, match=r"render\.py"):
        compare_masks.photograph_of(scene / "b", 0, (8, 8))
