"""Words to ids to masks, on the scene of two discs, whose silhouettes stand for a detector's marks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import render
from gradiseg.evaluation.masks import read_mask, write_mask
from gradiseg.evaluation.text import LERF_PROMPTS, marks_from_folder, overlay, prompts_of, select_ids
from scripts import eval_lerf_mask
from tests.disc_scene import (
    DISCS,
    HEIGHT,
    ITERATION,
    TEST_VIEWS,
    VIEWS,
    WIDTH,
    silhouette,
    write_run,
    write_scene,
)
from tests.tiny_models import write_detector, write_segmenter
from utils.errors import UserError
from utils.image import read_image

TEXT = "red disc; blue disc"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    scene, folder = tmp_path_factory.mktemp("scene"), tmp_path_factory.mktemp("run")
    write_scene(scene)
    write_run(folder, scene)
    return folder


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A perfect detector's marks in the first test view."""
    for prompt, disc in DISCS.items():
        write_mask(tmp_path / "marks" / f"{prompt}.png", silhouette(disc, TEST_VIEWS[0]))
    return tmp_path / "marks"


def test_an_id_counts_from_over_seven_tenths_of_its_own_area() -> None:
    ids = np.zeros((4, 10), np.int64)
    ids[0], ids[1], ids[2] = 3, 5, 7
    mark = np.zeros((4, 10), bool)
    mark[0, :7], mark[1, :8], mark[3] = True, True, True
    assert select_ids(ids, mark) == [5]  # 3 has exactly 0.7, 7 has none, 0 is no object
    assert select_ids(ids, np.zeros_like(mark)) == []


@given(st.integers(0, 2**32 - 1))
def test_a_larger_mark_never_loses_an_id(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, mark = rng.integers(0, 6, (8, 8)), rng.random((8, 8)) < 0.7
    larger = mark | (rng.random((8, 8)) < 0.3)
    assert set(select_ids(ids, mark)) <= set(select_ids(ids, larger)) <= set(ids.ravel())
    assert select_ids(ids, np.ones_like(mark)) == sorted(set(ids.ravel()) - {0})


def test_prompts_come_from_the_command_line_the_table_or_the_true_masks(tmp_path: Path) -> None:
    assert prompts_of(" old camera;green apple;; old camera ", tmp_path) == ["old camera", "green apple"]
    table = json.loads(LERF_PROMPTS.read_text())
    assert {scene: len(prompts) for scene, prompts in table.items()} == {
        "figurines": 7,
        "ramen": 6,
        "teatime": 10,
    }
    assert prompts_of("*", tmp_path / "ramen") == table["ramen"]
    write_mask(tmp_path / "my ramen" / "test_mask" / "0" / "egg.png", np.ones((2, 2), bool))
    assert prompts_of("*", tmp_path / "my ramen") == ["egg"]  # the folder's whole name counts
    with pytest.raises(UserError, match="Give them"):
        prompts_of("*", tmp_path / "other")
    with pytest.raises(UserError, match="slashes"):
        prompts_of("salt/pepper", tmp_path)


def test_marks_of_another_size_are_aligned_by_pixel_centres(tmp_path: Path) -> None:
    mark = np.zeros((10, 12), bool)
    mark[2:6, 4:8] = True
    write_mask(tmp_path / "cup.png", mark)
    smaller = marks_from_folder(tmp_path)(np.zeros((5, 6, 3), np.uint8), ["cup"])["cup"]
    assert np.array_equal(smaller.repeat(2, 0).repeat(2, 1), mark)
    with pytest.raises(UserError, match=r"bowl\.png"):
        marks_from_folder(tmp_path)(np.zeros((5, 6, 3), np.uint8), ["bowl"])


def test_an_overlay_tints_the_masks_and_greys_the_rest() -> None:
    picture = grey_picture(0.5)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:10] = True
    tinted = overlay(picture, {"cup": mask, "nothing": ~mask & mask})
    assert torch.allclose(tinted[:, 10:], torch.tensor(0.3)) and tinted[:, :10].unique().numel() > 1
    assert torch.equal(tinted[:, :10], tinted[:, :1, :1].expand(3, 10, WIDTH))


def grey_picture(value: float) -> torch.Tensor:
    """A picture of one grey."""
    return torch.full((3, HEIGHT, WIDTH), value)


def test_words_become_masks_in_every_view(run: Path, marks: Path) -> None:
    render.main(["-m", str(run), "--text", TEXT, "--text_masks", str(marks), "--quiet"])
    folder = run / "test" / f"ours_{ITERATION}_text"
    choice = json.loads((folder / "ids.json").read_text())
    assert choice["ids"] == {prompt: [disc.identity] for prompt, disc in DISCS.items()}
    assert choice["view"] == TEST_VIEWS[0]
    for split, views in (("test", TEST_VIEWS), ("train", [view for view in VIEWS if view not in TEST_VIEWS])):
        folder = run / split / f"ours_{ITERATION}_text"
        for number, view in enumerate(views):
            for prompt, disc in DISCS.items():
                mask = read_mask(folder / "test_mask" / str(number) / f"{prompt}.png")
                assert np.mean(mask == silhouette(disc, view)) > 0.99
            assert read_image(folder / "overlay" / f"{number:05d}.png").shape == (3, HEIGHT, WIDTH)
    assert not (run / "test" / f"ours_{ITERATION}").exists()  # the pictures are the other call's

    kept = str(run / "test" / f"ours_{ITERATION}_text" / "marks")  # serves as the detector of the next call
    render.main(["-m", str(run), "--text", "blue disc", "--text_masks", kept, "--skip_train", "--quiet"])
    found = json.loads((run / "test" / f"ours_{ITERATION}_text" / "ids.json").read_text())
    assert found["ids"] == {"blue disc": [DISCS["blue disc"].identity]}
    assert not list(run.glob("test/*_text/test_mask/*/red disc.png"))


def test_words_that_find_nothing_get_empty_masks_and_are_said(
    run: Path, marks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mask(marks / "blue disc.png", np.zeros((HEIGHT, WIDTH), bool))
    part = silhouette(DISCS["red disc"], TEST_VIEWS[0]) & (np.arange(WIDTH) < WIDTH // 4)
    write_mask(marks / "red disc.png", part)
    render.main(["-m", str(run), "--text", TEXT, "--text_masks", str(marks), "--skip_train"])
    said = caplog.text
    assert "blue disc: nothing found" in said and "red disc: found in the picture, but no id" in said
    masks = list(run.glob("test/*_text/test_mask/*/*.png"))
    assert len(masks) == 2 * len(TEST_VIEWS) and not any(read_mask(path).any() for path in masks)


def test_evaluation_by_words_scores_as_by_the_same_ids(run: Path, marks: Path, tmp_path: Path) -> None:
    common = ["-m", str(run), "--quiet", "--json"]
    eval_lerf_mask.main([*common, str(tmp_path / "oracle.json")])
    eval_lerf_mask.main([*common, str(tmp_path / "text.json"), "--text", "--text_masks", str(marks)])
    ids = str(run / "test" / f"ours_{ITERATION}_text" / "ids.json")
    eval_lerf_mask.main([*common, str(tmp_path / "file.json"), "--ids", ids])
    oracle, text, file = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("oracle", "text", "file")
    )
    for key in ("ids", "miou", "rules", "per_prompt"):
        assert oracle[key] == text[key] == file[key]
    assert text["ids_source"] == f"text: masks in marks in view {TEST_VIEWS[0]}"

    write_mask(marks / "blue disc.png", np.zeros((HEIGHT, WIDTH), bool))
    eval_lerf_mask.main([*common, str(tmp_path / "half.json"), "--text", "--text_masks", str(marks)])
    half = json.loads((tmp_path / "half.json").read_text())
    assert half["missing"] == []  # predicted, as empty
    assert half["miou"] == pytest.approx(oracle["per_prompt"]["red disc"]["iou"] / 2)


def test_words_and_other_sources_of_ids_exclude_each_other(run: Path) -> None:
    with pytest.raises(UserError, match="--text"):
        eval_lerf_mask.main(["-m", str(run), "--text", "--ids", "my.json"])


@pytest.mark.parametrize("threshold", ["0", "1"])
def test_the_models_of_two_folders_serve(run: Path, tmp_path: Path, threshold: str) -> None:
    """Random weights mark anything, but always the same; above the highest threshold, nothing."""
    pytest.importorskip("transformers")
    write_detector(tmp_path / "detector")
    write_segmenter(tmp_path / "segmenter")
    arguments = ["-m", str(run), "--text", TEXT, "--box_threshold", threshold, "--skip_train", "--quiet"]
    arguments += ["--detector", str(tmp_path / "detector"), "--segmenter", str(tmp_path / "segmenter")]
    records = []
    for _ in range(2):
        render.main(arguments)
        records.append(json.loads((run / "test" / f"ours_{ITERATION}_text" / "ids.json").read_text()))
    assert records[0] == records[1] and set(records[0]["ids"]) == set(DISCS)
    assert records[0]["source"] == f"text: detector and segmenter in view {TEST_VIEWS[0]}"
    marked = [read_mask(path).any() for path in run.glob("test/*_text/marks/*.png")]
    assert len(marked) == 2 and any(marked) == (threshold == "0")
