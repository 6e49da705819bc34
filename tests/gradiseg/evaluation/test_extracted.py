"""Objects cut out are scored by what they are alone, whatever stands before them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from arguments import DeviceParams, ModelParams
from gradiseg.evaluation.extracted import (
    AMODAL,
    SELECTIONS,
    UNSEEN,
    VISIBLE,
    Silhouette,
    count_found,
    evaluate_extracted,
    markdown,
    render_alone,
    score_extracted,
    score_silhouette,
    silhouettes,
)
from gradiseg.evaluation.masks import TruthMask, write_mask
from gradiseg.trained import TrainedRun, load_run
from gradiseg.votes import Votes
from tests.disc_scene import DISCS, HEIGHT, TEST_VIEWS, WIDTH, disc_model, silhouette, write_run, write_scene
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path: Path) -> TrainedRun:
    """A run of the two discs."""
    write_scene(tmp_path / "scene")
    write_run(tmp_path / "run", tmp_path / "scene")
    params = ModelParams(str(tmp_path / "scene"), str(tmp_path / "run"), train_split=True, sh_degree=0)
    return load_run(params, DeviceParams())


def piece(mask: np.ndarray, free: np.ndarray | None = None) -> Silhouette:
    """A truth of one view."""
    file = TruthMask(Path("0/disc.png"), "0", 0, "disc")
    return Silhouette(file, mask, np.zeros_like(mask) if free is None else free, mask)


def test_spill_is_the_alpha_outside_over_that_inside() -> None:
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    alpha = np.where(truth, 0.8, 0.0).astype(np.float32)
    alpha[0, :10] = 0.4  # too faint for a mask
    score = score_silhouette(alpha, piece(truth))
    assert score.iou == score.biou == score.biou_strict == 1
    assert score.spill == pytest.approx(10 * 0.4 / (100 * 0.8))
    free = np.zeros_like(truth)
    free[0] = True
    assert score_silhouette(alpha, piece(truth, free)).spill == 0


def test_free_pixels_count_as_right_whatever_the_object_does_there() -> None:
    truth, free = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[5:15, 5:15], free[10:] = True, True
    half = np.where(truth & ~free, 1.0, 0.0).astype(np.float32)
    assert score_silhouette(half, piece(truth)).iou == pytest.approx(0.5)
    assert score_silhouette(half, piece(truth, free)).iou == 1
    assert score_silhouette(np.ones((20, 20), np.float32), piece(truth, np.ones_like(truth))).iou == 1


def test_what_is_found_counts_what_the_view_shows_and_what_hides_there_apart() -> None:
    mask, shown, free, there = (np.zeros((10, 10), bool) for _ in range(4))
    mask[:8], shown[:5], free[7], there[4:7, :4] = True, True, True, True
    truth = Silhouette(TruthMask(Path("0/disc.png"), "0", 0, "disc"), mask, free, shown)
    assert count_found(there.astype(np.float32), truth).tolist() == [[50, 4], [20, 8]]


def test_nothing_chosen_scores_nothing() -> None:
    truth = np.ones((20, 20), bool)
    score = score_silhouette(np.zeros((20, 20), np.float32), piece(truth))
    assert score.iou == 0 and score.spill == 0


def test_what_hides_behind_another_object_is_rendered_alone(run: TrainedRun) -> None:
    model = disc_model()
    chosen = model.get_objects[:, 0].argmax(1) == DISCS["blue disc"].identity
    behind_red = model.params["xyz"][~chosen][: int(chosen.sum())].detach() + torch.tensor([0.0, 0.0, 0.5])
    with torch.no_grad():
        model.params["xyz"][chosen] = behind_red
    alpha, channels = render_alone(model, chosen, run.test_cameras[0], torch.ones(model.num_gaussians, 2))
    assert alpha.max() > 0.9
    torch.testing.assert_close(channels, alpha.expand(2, -1, -1))
    whole, _ = render_alone(model, torch.ones_like(chosen), run.test_cameras[0])
    assert (whole >= alpha - 0.02).all()  # rays end where next to nothing is left to see


def test_a_clean_run_scores_high_by_every_selection(run: TrainedRun, tmp_path: Path) -> None:
    record = evaluate_extracted(run, tmp_path / "scene", "object_mask")
    assert record["truth"] == VISIBLE and record["votes_from"] == "object_mask"
    for name in SELECTIONS:
        assert record["selections"][name]["iou"] > 0.93 and record["selections"][name]["spill"] < 0.1
    assert record["impurity"] < 0.1 and record["hidden"] < 0.01
    assert record["found"]["shown"] > 0.95 and record["found"]["share_behind"] == 0
    pictures = sorted(run.folder.extracted_pictures(run.iteration).glob("*/*.png"))
    assert [path.parent.name + "/" + path.stem for path in pictures] == [
        f"{k}/{prompt}" for k in range(len(TEST_VIEWS)) for prompt in sorted(DISCS)
    ]
    text = markdown(record, "run")
    assert "| votes |" in text and "red disc" in text and "count as right" in text


def test_silhouettes_come_before_visible_masks(tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    write_scene(scene)
    kind, pieces = silhouettes(scene, TEST_VIEWS)
    assert kind == VISIBLE
    by_prompt = {p.file.prompt: p for p in pieces if p.file.view == 0}
    assert (by_prompt["red disc"].free == by_prompt["blue disc"].mask).all()
    mask = silhouette(DISCS["red disc"], TEST_VIEWS[0])
    write_mask(scene / AMODAL / "0" / "red disc.png", mask)
    kind, pieces = silhouettes(scene, TEST_VIEWS)
    assert kind == AMODAL and len(pieces) == 1 and not pieces[0].free.any()
    assert (pieces[0].shown == by_prompt["red disc"].mask).all()
    corner = np.zeros((HEIGHT, WIDTH), bool)
    corner[:5, :5] = True
    write_mask(scene / UNSEEN / "0" / "red disc.png", corner)
    assert (silhouettes(scene, TEST_VIEWS)[1][0].free == corner).all()


def test_a_scene_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test_mask"):
        silhouettes(tmp_path, TEST_VIEWS)


def test_an_object_of_which_nothing_was_chosen_scores_nothing_even_where_no_view_sees_it(
    run: TrainedRun, tmp_path: Path
) -> None:
    blue = silhouette(DISCS["blue disc"], TEST_VIEWS[0])
    half = blue & (np.arange(WIDTH) < np.nonzero(blue)[1].mean())
    truth = [replace(piece(blue, half), file=TruthMask(tmp_path / "0/disc.png", "0", 0, "disc"))]
    nobody = torch.zeros(run.gaussians.num_gaussians)
    record = score_extracted(run, Votes(nobody.long(), nobody, nobody), {}, truth)
    assert record["selections"]["encoding"]["iou"] == 0
