"""prepare_masks.py from end to end on the demo scene: what it writes, what it recovers, what it refuses."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prepare_masks
from benchmarks.bench_associate3d import contingency, scores, shuffle_masks
from gradiseg.evaluation.metrics import mask_iou
from preparation import masks as backends
from preparation.id_maps import find_masks
from scene.colmap import read_model
from scene.dataset_readers import read_scene
from scene.masks import read_id_map
from scene.ply import export_3dgs_ply
from tests import disc_scene
from tests.colmap_files import write_model
from tests.tiny_models import AlikeColours, saved
from utils.errors import UserError

DEMO = Path(__file__).resolve().parents[1] / "data" / "demo"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """The demo scene without masks."""
    folder = tmp_path / "scene"
    for part in ("images", "sparse"):
        shutil.copytree(DEMO / part, folder / part)
    return folder


def run(scene: Path, *flags: str) -> dict[str, np.ndarray]:
    """Runs the command and reads what it wrote."""
    prepare_masks.main(["-s", str(scene), "--quiet", *flags])
    return {path.stem: read_id_map(path) for path in sorted((scene / "object_mask").glob("*.png"))}


def test_shuffled_exact_masks_are_put_together_again(scene: Path, tmp_path: Path) -> None:
    given = {path.stem: path for path in sorted((DEMO / "object_mask_exact").glob("*.png"))}
    shuffle_masks(given, tmp_path / "shuffled", seed=0)
    found = run(scene, "--masks", str(tmp_path / "shuffled"), "--json", str(tmp_path / "table.json"))
    result = scores(contingency((read_id_map(path), found[name]) for name, path in given.items()))
    assert result["adjusted_rand_index"] > 0.98 and result["purity"] > 0.98
    table = json.loads((tmp_path / "table.json").read_text())
    assert table == json.loads((scene / "object_mask" / "ids.json").read_text())
    assert 8 <= len(table["ids"]) <= 12  # nine objects
    areas = [row["pixels"] for row in table["ids"].values()]
    assert areas == sorted(areas, reverse=True)


def test_scores_of_a_perfect_and_of_a_random_labelling() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 5, (40, 50))
    assert scores(contingency([(true, 7 - true)])) == pytest.approx(
        {"adjusted_rand_index": 1, "purity": 1, "completeness": 1, "mean_best_iou": 1}
    )
    random = scores(contingency([(true, generator.integers(0, 5, true.shape))]))
    assert abs(random["adjusted_rand_index"]) < 0.01


def test_external_ids_stay_what_they_are_and_the_scene_reads_them(scene: Path) -> None:
    found = run(scene, "--backend", "external", "--masks", str(DEMO / "object_mask"))
    for name, ids in found.items():
        np.testing.assert_array_equal(ids, read_id_map(DEMO / "object_mask" / f"{name}.png"))
    info = read_scene(backends.ModelParams(str(scene)))
    assert sum(view.mask_path is not None for view in info.train_cameras) == len(found) == 36


def test_masks_are_replaced_only_on_request(scene: Path) -> None:
    flags = ("--backend", "external", "--masks")
    run(scene, *flags, str(DEMO / "object_mask"))
    (scene / "object_mask" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        run(scene, *flags, str(DEMO / "object_mask_exact"))
    assert (scene / "object_mask" / "mine.txt").is_file()
    assert len(run(scene, *flags, str(DEMO / "object_mask_exact"), "--overwrite")) == 42


def test_an_interrupted_segmentation_goes_on(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def segment(image: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == 11:
            raise OSError(errno.ENOSPC, "No space left on device")
        return np.where(np.arange(image.shape[1]) < 80, 1, 2) * np.ones(image.shape[:2], int)

    monkeypatch.setattr(backends, "EdgeSegmenter", lambda weights, device: segment)
    with pytest.raises(UserError, match="the disk is full"):
        run(scene)
    assert not (scene / "object_mask").exists()
    assert len(run(scene)) == 42
    assert len(calls) == 11 + 32
    run(scene, "--overwrite")
    assert len(calls) == 11 + 32
    moved = scene.rename(scene.with_name("moved"))
    run(moved, "--overwrite")
    assert len(calls) == 11 + 32
    run(moved, "--overwrite", "--weights", "others.h5")
    assert len(calls) == 11 + 32 + 42


def test_files_of_others_are_not_taken_for_segments(scene: Path) -> None:
    (scene / "segments" / "hed").mkdir(parents=True)
    (scene / "segments" / "hed" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="did not make"):
        run(scene)
    assert (scene / "segments" / "hed" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backend", "external"], "needs --masks"),
        (["--backend", "sam2", "--masks", "x"], "makes its own"),
        (["--masks", "{scene}/object_mask"], "are both"),
        (["--masks", "{scene}/none"], "no such folder"),
        (["--backend", "deva"], "'external', 'sam2', 'associate3d'"),
        (["--segmenter", "sam", "--weights", "{scene}/none"], "hf download facebook/sam-vit-base"),
        (["--backend", "sam2", "--weights", "{scene}/none"], r"hf download facebook/sam2\.1"),
        (["--masks", "{scene}/images"], "holds no PNG"),
        (["--backend", "splat", "--masks", "x"], "--ply FILE"),
        (["--backend", "clicks", "--ply", "x", "--segmenter", "sam"], "--clicks FILE"),
        (["--backend", "clicks", "--ply", "x", "--clicks", "x"], r"--segmenter walk \(no network\), sam"),
        (["--segmenter", "torchscript"], "with --backend clicks"),
        (["--segmenter", "walk"], "with --backend clicks"),
        (["--ply", "{scene}/x.ply", "--masks", "x"], "go together"),
        (["--backend", "splat", "--ply", "{scene}/x.ply", "--masks", f"{DEMO}/object_mask"], "not there"),
    ],
)
def test_what_cannot_be_done_is_said(scene: Path, flags: list[str], message: str) -> None:
    if "hf download" in message:
        pytest.importorskip("transformers")
    with pytest.raises(UserError, match=message):
        run(scene, *(flag.format(scene=scene) for flag in flags))
    assert not (scene / "object_mask").exists()


def test_a_photograph_that_is_none_is_named(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "EdgeSegmenter", lambda weights, device: lambda image: np.ones((120, 160)))
    (scene / "images" / "frame_00003.jpg").write_text("text")
    with pytest.raises(UserError, match=r"frame_00003\.jpg: cannot be read as an image"):
        run(scene)
    (scene / "images" / "frame_00003.jpg").unlink()
    with pytest.raises(UserError, match=r"frame_00003\.jpg: in the model but not on disk"):
        run(scene)


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """The scene of two discs, its masks shuffled in `shuffled/`, its splat in `splat.ply`."""
    folder = tmp_path / "discs"
    disc_scene.write_scene(folder)
    shuffle_masks({p.stem: p for p in (folder / "object_mask").iterdir()}, folder / "shuffled", seed=3)
    (folder / "object_mask").rename(folder / "true")
    export_3dgs_ply(folder / "splat.ply", disc_scene.disc_model().params)
    return folder


def test_a_splat_joins_what_its_gaussians_colour(discs: Path) -> None:
    """COLMAP's model has no tracks here, so that the splat alone can say it."""
    found = run(discs, "--backend", "splat", "--ply", f"{discs}/splat.ply", "--masks", f"{discs}/shuffled")
    true = {name: read_id_map(discs / "true" / f"{name}.png") for name in found}
    shuffled = [read_id_map(discs / "shuffled" / f"{name}.png") for name in found]
    assert scores(contingency(zip(true.values(), shuffled, strict=True)))["adjusted_rand_index"] < 0.99
    table = contingency((true[name], ids) for name, ids in found.items())
    assert scores(table)["adjusted_rand_index"] == 1.0 and len(found) == 4


def test_a_splat_of_another_scene_joins_nothing(discs: Path, scene: Path) -> None:
    with pytest.raises(UserError, match="do not belong together"):
        run(scene, "--backend", "splat", "--ply", f"{discs}/splat.ply", "--masks", f"{DEMO}/object_mask")
    assert not (scene / "object_mask").exists()


def clicked(discs: Path, table: object, *flags: str) -> dict[str, np.ndarray]:
    """Masks of what is clicked by a network that goes by colours."""
    (discs / "clicks.json").write_text(json.dumps(table))
    net = saved(AlikeColours(), discs / "net.pt")
    by_splat = ("--backend", "clicks", "--ply", f"{discs}/splat.ply", "--clicks", f"{discs}/clicks.json")
    return run(discs, *by_splat, "--segmenter", "torchscript", "--weights", net, *flags)


def test_a_click_becomes_masks_of_all_views(discs: Path) -> None:
    """Clicks in different views, the one disc's far from its middle: both discs, exact in every view."""
    names = list(disc_scene.DISCS)[::-1]
    views = list(disc_scene.VIEWS)
    points = [
        disc_scene.projected_centre(disc_scene.DISCS[name], view)
        for name, view in zip(names, views, strict=False)
    ]
    table = {
        names[0]: {views[0]: [[*points[0]]]},
        names[1]: {views[1]: [[points[1][0] - 15, points[1][1]]]},
    }
    found = clicked(discs, table)
    assert set(found) == set(views)  # test views, too: they are views of the scene
    for view, ids in found.items():
        for number, name in enumerate(names, 1):
            np.testing.assert_array_equal(ids == number, disc_scene.silhouette(disc_scene.DISCS[name], view))
    assert json.loads((discs / "object_mask" / "ids.json").read_text())["names"] == {names[0]: 1, names[1]: 2}


def test_clicks_need_no_network(discs: Path) -> None:
    red, blue = disc_scene.DISCS.values()
    first, other = (disc_scene.projected_centre(disc, "view.0") for disc in (red, blue))
    (discs / "clicks.json").write_text(json.dumps({"red": {"view.0": [[*other, 0], [*first]]}}))
    by_splat = ("--backend", "clicks", "--ply", f"{discs}/splat.ply", "--clicks", f"{discs}/clicks.json")
    found = run(discs, *by_splat, "--segmenter", "walk")
    assert set(found) == set(disc_scene.VIEWS)
    for view, ids in found.items():
        assert mask_iou(ids == 1, disc_scene.silhouette(red, view)) > 0.9
    (discs / "clicks.json").write_text(json.dumps({"nothing": {"view.0": [[1, 1]]}}))
    with pytest.raises(UserError, match="nothing is found where the clicks are"):
        run(discs, *by_splat, "--segmenter", "walk", "--overwrite")


def test_what_a_network_loses_is_refused(discs: Path) -> None:
    """A photograph in which every pixel has a colour of its own: no mask of its view, not an empty one."""
    view, red = "view.3", disc_scene.DISCS["red disc"]
    noise = np.random.default_rng(0).integers(0, 255, (disc_scene.HEIGHT, disc_scene.WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(discs / "images" / f"{view}.png")
    table = {"red disc": {"view.0": [[*disc_scene.projected_centre(red, "view.0")]]}}
    assert set(clicked(discs, table)) == set(disc_scene.VIEWS) - {view}


def test_where_no_view_is_left_it_is_said(discs: Path) -> None:
    """The blue disc shows in one photograph alone, in which the red one is lost."""
    red, blue = disc_scene.DISCS.values()
    noise = np.random.default_rng(0).integers(0, 255, (disc_scene.HEIGHT, disc_scene.WIDTH, 3), np.uint8)
    for view in disc_scene.VIEWS:
        path = discs / "images" / f"{view}.png"
        photograph, lost = np.array(Image.open(path)), red if view == "view.3" else blue
        where = disc_scene.silhouette(lost, view)
        photograph[where] = noise[where]
        Image.fromarray(photograph).save(path)
    table = {
        "blue disc": {"view.3": [[*disc_scene.projected_centre(blue, "view.3")]]},
        "red disc": {"view.0": [[*disc_scene.projected_centre(red, "view.0")]]},
    }
    with pytest.raises(UserError, match="every view with a mask has another that was refused"):
        clicked(discs, table)
    del table["blue disc"]
    assert set(clicked(discs, table)) == set(disc_scene.VIEWS) - {"view.3"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "no table of clicks"),
        ({"disc": []}, "'disc': names no view"),
        ({"disc": {"view.9": [[1, 1]]}}, "'view.9' is no view of the scene"),
        ({"disc": {"view.0": [[1]]}}, r"write points as"),
        ({"disc": {"view.0": [[1, 500]]}}, "all within 144x108 pixels"),
        ({"disc": {"view.0": [[9, 9, 0]]}}, "needs a point of the object"),
    ],
)
def test_clicks_that_are_none_are_named(discs: Path, table: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        clicked(discs, table)
    assert not (discs / "object_mask").exists()


def test_a_model_without_tracks_cannot_associate(scene: Path) -> None:
    write_model(scene / "sparse" / "0", read_model(scene / "sparse" / "0"))
    with pytest.raises(UserError, match="holds no tracks"):
        run(scene, "--masks", str(DEMO / "object_mask"))


def test_larger_masks_than_images_are_fine(scene: Path, tmp_path: Path) -> None:
    views = read_scene(backends.ModelParams(str(DEMO))).train_cameras
    for name, path in find_masks(DEMO / "object_mask_exact", views).items():
        (tmp_path / "large").mkdir(exist_ok=True)
        ids = read_id_map(path).astype(np.uint8).repeat(2, 0).repeat(2, 1)
        Image.fromarray(ids).save(tmp_path / "large" / f"{name}.png")
    large = run(scene, "--masks", str(tmp_path / "large"))
    table = contingency(
        (read_id_map(DEMO / "object_mask_exact" / f"{n}.png"), i[::2, ::2]) for n, i in large.items()
    )
    assert scores(table)["adjusted_rand_index"] > 0.98
