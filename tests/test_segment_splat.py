"""segment_splat.py: from a splat without identities to a run that every other command opens."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import edit
import export
import render
import segment_splat
from arguments import ModelParams
from gradiseg.classifier import identify, load_conv
from scene.dataset_readers import read_scene
from scene.masks import read_id_map, write_id_map
from scene.ply import export_3dgs_ply, read_ply, read_point_cloud
from scripts import eval_extracted, eval_lerf_mask
from tests.disc_scene import DISCS, disc_model, write_scene
from tests.given_cameras import (
    SCALE,
    cameras_json,
    dataparser_json,
    in_that_frame,
    transforms_json,
    write_json,
)
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two discs."""
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder)
    return folder


@pytest.fixture(scope="module")
def splat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their splat as 3DGS writes it, with ten Gaussians behind the cameras."""
    params = {name: table.detach().clone() for name, table in disc_model().params.items()}
    params["xyz"][:10, 2] = -3.0
    path = tmp_path_factory.mktemp("splat") / "point_cloud.ply"
    export_3dgs_ply(path, params)
    return path


def segment(splat: Path, scene: Path, out: Path, *flags: str) -> Path:
    """Run the command; the folder of the saved model."""
    segment_splat.main(
        ["--ply", str(splat), "-s", str(scene), "-m", str(out), "--train_split", "--quiet", *flags]
    )
    return next((out / "point_cloud").iterdir())


def test_every_command_works_on_the_result(splat: Path, scene: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    saved = segment(splat, scene, run, "--rounds", "1", "--steps", "8")
    record = json.loads((run / "segmented.json").read_text())
    assert record["unseen"] == 10 and record["objects"] == 2 and saved.name == "iteration_8"
    render.main(["-m", str(run), "--quiet"])
    for script in (eval_lerf_mask, eval_extracted):
        script.main(["-m", str(run), "--quiet"])
    masks = json.loads((run / "eval_lerf_mask.json").read_text())
    assert masks["miou"] > 0.9 and min(rule["miou"] for rule in masks["rules"].values()) > 0.9
    extracted = json.loads((run / "eval_extracted.json").read_text())
    assert min(means["iou"] for means in extracted["selections"].values()) > 0.9
    edit.main(["-m", str(run), "--out", str(tmp_path / "edited"), "--quiet", "remove", "--select", "3"])
    export.main(["-m", str(run), "--per_object", "--out", str(tmp_path / "parts"), "--quiet"])
    ids = np.load(tmp_path / "parts" / "5.ids.npy")
    assert set(ids) == {5}


def test_votes_alone_leave_the_splat_as_it_is(splat: Path, scene: Path, tmp_path: Path) -> None:
    saved = segment(splat, scene, tmp_path / "run", "--no_refine")
    before, after = read_ply(splat), read_ply(saved / "point_cloud.ply")
    assert saved.name == "iteration_0"
    assert all(torch.equal(before[name], after[name]) for name in before if name != "obj_dc")
    said = identify(after["obj_dc"][:, 0], load_conv(saved / "classifier.pth"))
    votes = np.load(saved / "votes.npz")
    np.testing.assert_array_equal(said.numpy(), votes["ids"])
    truth = disc_model().get_objects[10:, 0].argmax(1)
    assert (said[:10] == 0).all() and (said[10:] == truth).float().mean() > 0.95


def test_the_same_seed_gives_the_same_bits(splat: Path, scene: Path, tmp_path: Path) -> None:
    flags = ("--rounds", "2", "--steps", "3")
    one, two = (segment(splat, scene, tmp_path / name, *flags) for name in ("one", "two"))
    for name in ("point_cloud.ply", "classifier.pth"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_what_no_mask_shows_gets_no_id(splat: Path, scene: Path, tmp_path: Path) -> None:
    """Masks that leave an object out: its Gaussians are id 0, not that of the object next to it."""
    folder = tmp_path / "scene"
    write_scene(folder)
    for path in (folder / "object_mask").iterdir():
        ids = read_id_map(path)
        write_id_map(path, np.where(ids == DISCS["blue disc"].identity, 0, ids))
    saved = segment(splat, folder, tmp_path / "run", "--no_refine")
    ids = np.load(saved / "votes.npz")["ids"]
    assert set(ids) == {0, DISCS["red disc"].identity}
    blue = disc_model().get_objects[:, 0].argmax(1).numpy() == DISCS["blue disc"].identity
    assert not ids[blue].any()


def test_a_splat_of_another_scene_is_refused_and_nothing_is_written(scene: Path, tmp_path: Path) -> None:
    params = {name: table.detach().clone() for name, table in disc_model().params.items()}
    params["f_dc"] = -params["f_dc"]
    params["xyz"] = params["xyz"] + torch.tensor([0.0, 0.6, 0.0])
    export_3dgs_ply(tmp_path / "other.ply", params)
    with pytest.raises(UserError, match="do not belong together"):
        segment(tmp_path / "other.ply", scene, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def in_nerfstudios_frame(path: Path) -> Path:
    """The splat as nerfstudio would have trained it: turned, centred, scaled."""
    params = {name: table.detach().clone() for name, table in disc_model().params.items()}
    moved = in_that_frame(params["xyz"].double().numpy())
    params["xyz"] = torch.from_numpy(moved).float()
    params["scaling"] += float(np.log(SCALE))  # the same in all directions
    export_3dgs_ply(path, params)
    return path


def test_poses_of_other_programs_give_the_same_objects(
    scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """cameras.json beside a folder without poses; nerfstudio's frame beside COLMAP's or its own poses."""
    info = read_scene(ModelParams(str(scene), train_split=True))
    bare = tmp_path / "bare"
    for part in ("images", "images_train", "object_mask"):
        shutil.copytree(scene / part, bare / part)
    plain, turned = tmp_path / "plain.ply", in_nerfstudios_frame(tmp_path / "turned.ply")
    export_3dgs_ply(plain, disc_model().params)
    cameras = write_json(tmp_path / "given" / "cameras.json", cameras_json(info))
    transforms = write_json(tmp_path / "given" / "transforms.json", transforms_json(info))
    dataparser = write_json(tmp_path / "frame.json", dataparser_json())
    ways: dict[str, tuple[Path, Path, list[str]]] = {
        "own": (plain, scene, []),
        "3dgs": (plain, bare, ["--cameras", str(cameras)]),
        "colmap": (turned, scene, ["--dataparser", str(dataparser)]),
        "nerfstudio": (turned, bare, ["--cameras", str(transforms), "--dataparser", str(dataparser)]),
    }
    ids = {}
    for name, (splat, folder, flags) in ways.items():
        saved = segment(splat, folder, tmp_path / name, "--no_refine", *flags)
        ids[name] = np.load(saved / "votes.npz")["ids"]
        if name == "nerfstudio":  # other commands read the poses where segment_splat.py did
            render.main(["-m", str(tmp_path / name), "--quiet"])
            assert json.loads((tmp_path / name / "segmented.json").read_text())["psnr"] > 20
        if (
            "--cameras" in flags
        ):  # no points: those of the splat, and nothing is told that only training needs
            xyz = read_ply(splat)["xyz"].numpy()
            np.testing.assert_array_equal(read_point_cloud(tmp_path / name / "input.ply")[0], xyz)
    assert "random points" not in caplog.text and "far from any other" not in caplog.text
    assert {disc.identity for disc in DISCS.values()} <= set(ids["own"])
    for name in ways:
        assert (ids[name] == ids["own"]).mean() > 0.99, name  # equal depths come in another order


def test_the_poses_near_a_splat_are_named(scene: Path, tmp_path: Path) -> None:
    saved = tmp_path / "trained" / "point_cloud" / "iteration_7"
    saved.mkdir(parents=True)
    write_json(tmp_path / "trained" / "dataparser_transforms.json", dataparser_json())
    splat = in_nerfstudios_frame(saved / "point_cloud.ply")
    with pytest.raises(UserError, match=r"Near it lies .*dataparser_transforms\.json: try --dataparser"):
        segment(splat, scene, tmp_path / "run", "--no_refine")


def test_what_half_of_the_views_would_need_to_see_has_id_0(scene: Path, tmp_path: Path) -> None:
    """Masks that never see half of the scene."""
    params = {
        name: torch.cat([table.detach(), table.detach()]) for name, table in disc_model().params.items()
    }
    half = len(params["xyz"]) // 2
    params["xyz"][half:, 0] += 50.0
    export_3dgs_ply(tmp_path / "splat.ply", params)
    saved = segment(tmp_path / "splat.ply", scene, tmp_path / "run", "--no_refine")
    ids = np.load(saved / "votes.npz")["ids"]
    assert json.loads((tmp_path / "run" / "segmented.json").read_text())["unseen"] == half
    assert not ids[half:].any() and (ids[:half] > 0).mean() > 0.9


def test_masks_are_needed(splat: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no masks of training views.*--object_path"):
        segment(splat, scene, tmp_path / "run", "--object_path", "nowhere")
    with pytest.raises(UserError, match="--ply is required"):
        segment_splat.main(["-s", str(scene), "-m", str(tmp_path / "run")])


def test_a_stop_writes_nothing(
    splat: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine = segment_splat.Segmentation.refine

    def stopped(self: segment_splat.Segmentation, *args: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        refine(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(segment_splat.Segmentation, "refine", stopped)
    with pytest.raises(UserError, match="Nothing was written"):
        segment(splat, scene, tmp_path / "run", "--steps", "50")
    assert not (tmp_path / "run").exists()


def test_another_run_is_not_written_over(splat: Path, scene: Path, tmp_path: Path) -> None:
    segment(splat, scene, tmp_path / "run", "--no_refine")
    with pytest.raises(UserError, match="--overwrite"):
        segment(splat, scene, tmp_path / "run", "--no_refine")
    segment(splat, scene, tmp_path / "run", "--no_refine", "--overwrite")
