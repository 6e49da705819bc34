"""The commands on a finished run: what they write, what their scores are, what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import edit_object_removal
import metrics
import render
from scene import GaussianModel
from scripts import eval_lerf_mask, make_report
from tests.disc_scene import DISCS, ITERATION, TEST_VIEWS, VIEWS, silhouette, write_run, write_scene
from utils.errors import UserError

TRAIN_VIEWS = [name for name in VIEWS if name not in TEST_VIEWS]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene of two discs."""
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder)
    return folder


@pytest.fixture(scope="module")
def run(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of it that has been rendered."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, scene)
    render.main(["-m", str(folder), "--quiet"])
    return folder


def read_model(path: Path) -> dict[str, torch.Tensor]:
    """Parameters of a saved model."""
    model = GaussianModel(0)
    model.load_ply(path)
    return {name: value.detach() for name, value in model.params.items()}


def read_pixels(path: Path) -> np.ndarray:
    """A picture file as an array."""
    with Image.open(path) as image:
        return np.asarray(image)


def test_render_writes_both_splits_in_name_order(run: Path) -> None:
    for split, names in (("train", TRAIN_VIEWS), ("test", TEST_VIEWS)):
        folder = run / split / f"ours_{ITERATION}"
        for kind in ("renders", "gt", "objects_feature16", "objects_pred", "objects_id", "concat"):
            assert len(list((folder / kind).glob("*.png"))) == len(names)
        for index, name in enumerate(names):
            ids = read_pixels(folder / "objects_id" / f"{index:05d}.png")
            for disc in DISCS.values():
                inside = silhouette(disc, name)
                assert np.mean((ids == disc.identity) == inside) > 0.99
    masked = {
        split: (run / split / f"ours_{ITERATION}" / "gt_objects_color").is_dir()
        for split in ("train", "test")
    }
    assert masked == {"train": True, "test": False}


def test_metrics_are_those_of_the_test_pictures(run: Path, tmp_path: Path) -> None:
    metrics.main(["-m", str(run), "--json", str(tmp_path / "scores.json"), "--quiet"])
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record == json.loads((run / "results.json").read_text())
    folder = run / "test" / f"ours_{ITERATION}"
    errors = [
        np.mean((read_pixels(folder / "renders" / name) / 255 - read_pixels(folder / "gt" / name) / 255) ** 2)
        for name in ("00000.png", "00001.png")
    ]
    assert record["psnr"] == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-3)
    assert record["views"] == len(TEST_VIEWS)


def test_several_runs_are_told_apart_by_their_path(run: Path, scene: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "other", scene)
    render.main(["-m", str(tmp_path / "other"), "--skip_test", "--quiet"])
    runs = [str(run), str(tmp_path / "other")]
    metrics.main(["-m", *runs, "--json", str(tmp_path / "scores.json"), "--lpips", "none", "--quiet"])
    records = json.loads((tmp_path / "scores.json").read_text())
    assert [records[path]["split"] for path in runs] == ["test", "train"]


@pytest.mark.parametrize("given", [False, True])
def test_masks_are_predicted_written_and_scored(run: Path, tmp_path: Path, given: bool) -> None:
    arguments = ["-m", str(run), "--json", str(tmp_path / "scores.json"), "--quiet"]
    if given:
        (tmp_path / "ids.json").write_text(
            json.dumps({prompt: disc.identity for prompt, disc in DISCS.items()})
        )
        arguments += ["--ids", str(tmp_path / "ids.json")]
    eval_lerf_mask.main(arguments)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["miou"] > 0.9
    assert record["ids"] == {prompt: [disc.identity] for prompt, disc in DISCS.items()}
    assert ("file" if given else "test views") in record["ids_source"]
    assert set(record["rules"]) == {"softmax>0.2", "softmax>0.5", "argmax"}
    assert record["rules"]["softmax>0.2"]["miou"] == record["miou"]
    assert "red disc" in (tmp_path / "scores.md").read_text()

    written = str(run / f"test/ours_{ITERATION}_text/test_mask")  # these files alone score the same
    eval_lerf_mask.main(
        ["--pred", written, "-m", str(run), "--json", str(tmp_path / "again.json"), "--quiet"]
    )
    again = json.loads((tmp_path / "again.json").read_text())
    assert {key: again[key] for key in again} == {key: record[key] for key in again}


def test_a_prompt_without_an_id_is_missing_in_every_view(run: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text('{"red disc": 3}')
    eval_lerf_mask.main(
        ["-m", str(run), "--ids", str(tmp_path / "ids.json"), "--json", str(tmp_path / "s.json"), "--quiet"]
    )
    record = json.loads((tmp_path / "s.json").read_text())
    assert record["missing"] == ["0/blue disc", "1/blue disc"]
    assert not list((run / f"test/ours_{ITERATION}_text/test_mask").rglob("blue disc.png"))
    assert record["per_prompt"]["blue disc"]["iou"] == 0.0


def test_removing_a_disc_leaves_the_other_as_it_was(run: Path) -> None:
    edit_object_removal.main(["-m", str(run), "--ids", "3", "--quiet"])
    for index, name in enumerate(TEST_VIEWS):
        picture = f"{index:05d}.png"
        edited = read_pixels(run / f"test/ours_object_removal/iteration_{ITERATION}/renders" / picture)
        before = read_pixels(run / f"test/ours_{ITERATION}/renders" / picture)
        assert np.array_equal(
            edited[silhouette(DISCS["blue disc"], name)], before[silhouette(DISCS["blue disc"], name)]
        )
        assert edited[silhouette(DISCS["red disc"], name)].max() == 0
    folder = run / "point_cloud_object_removal" / f"iteration_{ITERATION}"
    whole = read_model(run / "point_cloud" / f"iteration_{ITERATION}" / "point_cloud.ply")
    left = read_model(folder / "point_cloud.ply")
    rows = whole["obj_dc"][:, 0, 5] > 0
    assert all(torch.equal(left[name], whole[name][rows]) for name in whole)
    assert (folder / "classifier.pth").is_file()


def test_keeping_a_disc_is_removing_the_other(run: Path) -> None:
    pictures = []
    edit_object_removal.main(["-m", str(run), "--ids", "5", "--quiet"])
    for arguments in (["--ids", "3"], ["--ids", "5", "--mode", "keep", "--hull", "none"]):
        edit_object_removal.main(["-m", str(run), *arguments, "--skip_train", "--quiet"])
        pictures.append(
            read_pixels(run / f"test/ours_object_removal/iteration_{ITERATION}/renders/00000.png")
        )
    assert np.array_equal(pictures[0], pictures[1])
    left = run / f"train/ours_object_removal/iteration_{ITERATION}/renders"
    assert not list(left.glob("*.png"))  # those of the removal before would be scored as this one's


def test_gaussian_groupings_json_chooses_the_objects(run: Path, tmp_path: Path) -> None:
    config = tmp_path / "removal.json"
    # num_classes is Gaussian Grouping's; how many there are is in the classifier's file
    config.write_text(json.dumps({"num_classes": 256, "removal_thresh": 0.3, "select_obj_id": [3]}))
    edit_object_removal.main(["-m", str(run), "--config_file", str(config), "--skip_train", "--quiet"])
    record = json.loads((run / f"point_cloud_object_removal/iteration_{ITERATION}/edit.json").read_text())
    assert record["select_obj_id"] == [3]
    whole = read_model(run / f"point_cloud/iteration_{ITERATION}/point_cloud.ply")
    assert record["selected"] + record["left"] == len(whole["xyz"])


def test_errors_name_the_remedy(run: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 \(.*5 \("):
        edit_object_removal.main(["-m", str(run)])
    with pytest.raises(UserError, match="cfg_args"):
        render.main(["-m", str(tmp_path)])
    with pytest.raises(UserError, match=r"render\.py"):
        metrics.main(["-m", str(tmp_path)])
    with pytest.raises(UserError, match="--pred"):
        eval_lerf_mask.main([])
    with pytest.raises(UserError, match="-s"):
        eval_lerf_mask.main(["--pred", str(tmp_path)])
    with pytest.raises(UserError, match=r"training_summary\.json"):
        make_report.main(["--gradiseg", str(run), "--baseline", str(run), "--out", str(tmp_path)])
