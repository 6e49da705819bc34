"""The doctor finds what was done to a scene, and goes on after the first finding."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import check_scene
from arguments import ModelParams
from preparation.consistency import Sighting, agreement, find_switches, see
from preparation.doctor import Finding, Patient, examine
from scene.dataset_readers import read_scene
from scene.masks import read_id_map
from utils.errors import UserError

DEMO = Path(__file__).parents[2] / "data" / "demo"
VIEW = "frame_00010"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "demo"))


def diagnose(folder: Path, **options: object) -> tuple[Patient | None, list[Finding]]:
    params = ModelParams(source_path=str(folder), **{"train_split": True, **options})  # type: ignore[arg-type]
    return examine(params, 3)


def texts(folder: Path, level: str, **options: object) -> str:
    return "\n".join(found.text for found in diagnose(folder, **options)[1] if found.level == level)


def write_ids(folder: Path, name: str, ids: np.ndarray) -> None:
    Image.fromarray(ids.astype(np.uint16)).save(folder / "object_mask" / f"{name}.png")


def test_exact_masks_are_healthy() -> None:
    patient, findings = diagnose(DEMO, object_path="object_mask_exact")
    assert patient is not None and patient.agreement is not None
    assert [finding for finding in findings if finding.level != "note"] == []
    assert patient.agreement > 0.75 and not patient.switches


def test_the_switched_object_of_the_demo_is_found() -> None:
    """Four views have id 10 where the others have 5. (Another switched object is too small for points.)"""
    patient, _ = diagnose(DEMO)
    assert patient is not None
    assert [(switch.id, switch.other, len(switch.views)) for switch in patient.switches] == [(10, 5, 4)]


def test_a_switch_is_found_wherever_it_is(demo: Path) -> None:
    for path in sorted((demo / "object_mask_exact").iterdir()):
        ids = read_id_map(path)
        write_ids(demo, path.stem, np.where((ids == 2) & (path.stem < VIEW), 20, ids))
    patient, _ = diagnose(demo)
    assert patient is not None
    assert {(switch.id, switch.other) for switch in patient.switches} == {(20, 2)}
    showing = {name for name, areas in patient.areas.items() if areas.get(20, 0) > 200}
    assert showing <= set(patient.switches[0].views)


def test_ids_of_each_view_for_itself_do_not_agree(demo: Path) -> None:
    generator = np.random.default_rng(0)
    for path in (demo / "object_mask").iterdir():
        ids = read_id_map(path)
        shuffled = np.r_[0, 1 + generator.permutation(ids.max())]
        write_ids(demo, path.stem, shuffled[ids])
    assert "another scene" in texts(demo, "warning")


def test_masks_of_another_scene_by_name(demo: Path) -> None:
    for path in list((demo / "object_mask").iterdir()):
        path.rename(path.with_name(f"other_{path.name}"))
    assert "no masks" in texts(demo, "error") and "other images" in texts(demo, "error")


def test_everything_broken_is_named_at_once(demo: Path) -> None:
    (demo / "images" / "frame_00001.jpg").write_text("a shopping list")
    (demo / "images" / "frame_00002.jpg").unlink()
    Image.new("RGB", (120, 160)).save(demo / "images" / "frame_00003.jpg")
    mask = demo / "object_mask" / "frame_00004.png"
    mask.write_bytes(mask.read_bytes()[:100])
    (demo / "object_mask" / "frame_00005.png").unlink()
    write_ids(demo, "frame_00006", np.zeros((120, 160)))
    write_ids(demo, "stranger", np.ones((120, 160)))
    errors, warnings = texts(demo, "error"), texts(demo, "warning")
    for name in ("frame_00001", "frame_00002", "frame_00003.jpg: 120x160", "frame_00004.png"):
        assert name in errors
    for name in ("frame_00005", "frame_00006", "stranger.png"):
        assert name in warnings


@pytest.mark.parametrize(("largest", "remedy"), [(300, "--num_classes 301"), (69_999, "numbered anew")])
def test_ids_without_a_class(demo: Path, largest: int, remedy: str) -> None:
    ids = np.full((120, 160), largest)
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(demo / "object_mask" / f"{VIEW}.png")
    assert remedy in texts(demo, "error")


def test_test_views_that_train(demo: Path) -> None:
    assert "held out" in texts(demo, "warning", train_split=False)
    held_out = next(
        path
        for path in sorted((demo / "images").iterdir())
        if not (demo / "images_train" / path.name).exists()
    )
    shutil.copy(held_out, demo / "images" / f"{VIEW}.jpg")
    assert f"{held_out.stem} = {VIEW}" in texts(demo, "warning")
    (demo / "test_mask" / "17").mkdir()
    assert "17" in texts(demo, "warning")


def test_reports_for_people_and_for_scripts(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-s", str(demo), "--train_split", "--json", str(tmp_path / "report.json")]
    with pytest.raises(SystemExit) as status:
        check_scene.main([*command, "--sheet", str(tmp_path / "sheet.png"), "--sheet_views", "2"])
    assert status.value.code == 0
    assert "36 training views, 6 test views" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["errors"] == 0 and report["warnings"] == len(
        [finding for finding in report["findings"] if finding["level"] == "warning"]
    )
    assert set(report["ids"]) >= {"1", "5", "10"} and report["ids"]["10"]["views"] == 4
    assert sum(report["masks"]["per_view"][VIEW].values()) == 160 * 120
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 200
    with pytest.raises(SystemExit) as status:
        check_scene.main([*command, "--quiet", "--strict"])
    assert status.value.code == 1
    shutil.rmtree(demo / "sparse")
    with pytest.raises(SystemExit) as status:
        check_scene.main([*command, "--quiet"])
    assert status.value.code == 1 and "sparse" in capsys.readouterr().out
    with pytest.raises(UserError, match="-s"):
        check_scene.main([])


def test_votes_of_points() -> None:
    """Two views agree on ids 1 and 2; a third calls the first object 3."""
    rows = np.arange(8)
    ids = np.repeat([1, 2], 4)
    sightings = {name: Sighting(rows, ids) for name in "ab"}
    assert agreement(list(sightings.values())) == pytest.approx(1.0)
    sightings["c"] = Sighting(rows, np.where(ids == 1, 3, ids))
    areas = {name: {int(label): 4 for label in np.unique(found.ids)} for name, found in sightings.items()}
    (switch,) = find_switches(sightings, areas)
    assert (switch.id, switch.other, switch.views) == (3, 1, ["c"])
    areas["c"][1] = 4  # where object 1 is in the view too, 3 lies before it
    assert find_switches(sightings, areas) == []


def test_a_point_behind_another_is_not_seen() -> None:
    info = read_scene(ModelParams(source_path=str(DEMO)))
    view = info.train_cameras[0]
    ray = view.R @ np.array([0.0, 0.0, 1.0])
    centre = -view.R @ view.T
    points = centre + ray * np.array([[2.0], [2.05], [3.0], [-1.0]])
    ids = np.full((view.height, view.width), 7)
    sighting = see(view, points, ids)
    assert sighting.points.tolist() == [0, 1] and sighting.ids.tolist() == [7, 7]
