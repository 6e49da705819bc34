"""export.py on a run: files, labels, a page, and the way back by edit.py."""

from pathlib import Path

import numpy as np
import pytest
import torch

import edit
import export
from scene.formats.files import read_gaussians
from scene.ply import read_ply
from tests.disc_scene import DISCS, ITERATION, write_run, write_scene
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the two discs, the red one with a name."""
    scene, folder = tmp_path_factory.mktemp("scene"), tmp_path_factory.mktemp("run")
    write_scene(scene)
    write_run(folder, scene)
    (folder / "objects.json").write_text('{"3": "red disc"}')
    return folder


def model_of(run: Path) -> dict[str, torch.Tensor]:
    """Parameters of a run's model."""
    return read_ply(run / "point_cloud" / f"iteration_{ITERATION}" / "point_cloud.ply")


def test_the_scene_with_its_labels(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export.main(["-m", str(run), "--out", str(tmp_path), "--page"])
    assert torch.equal(read_gaussians(tmp_path / "scene.ply")["xyz"], model_of(run)["xyz"])
    assert set(np.load(tmp_path / "scene.ids.npy")) == {disc.identity for disc in DISCS.values()}
    assert (tmp_path / "scene.html").is_file()
    assert "centres move by at most 0" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"scene\.ply: is there"):
        export.main(["-m", str(run), "--out", str(tmp_path)])
    export.main(["-m", str(run), "--out", str(tmp_path), "--overwrite", "--quiet"])


def test_objects_alone_and_selections(run: Path) -> None:
    export.main(["-m", str(run), "--per_object", "--format", "splat", "--quiet"])
    names = {path.name for path in (run / "exports").glob("*.splat")}
    assert names == {"3_red_disc.splat", "5.splat"}
    export.main(["-m", str(run), "--select", "red disc", "--format", "glb", "--quiet"])
    chosen = read_gaussians(run / "exports" / "selection.glb")
    assert torch.equal(chosen["xyz"], read_gaussians(run / "exports" / "3_red_disc.splat")["xyz"])
    with pytest.raises(UserError, match=r"selection\.ids\.npy: belongs to another export"):
        export.main(["-m", str(run), "--select", "5", "--format", "splat", "--quiet"])
    export.main(["-m", str(run), "--select", "3", "--format", "splat", "--quiet"])  # the same labels
    with pytest.raises(UserError, match="no Gaussian has the id 7"):
        export.main(["-m", str(run), "--select", "7", "--quiet"])


@pytest.mark.parametrize("name", ["ply", "splat", "glb"])
def test_the_way_back_by_edit(run: Path, tmp_path: Path, name: str) -> None:
    export.main(["-m", str(run), "--out", str(tmp_path), "--format", name, "--quiet"])
    out = tmp_path / "back"
    source = str(tmp_path / f"scene.{name}")
    edit.main(["-m", str(run), "--out", str(out), "--quiet", "import", "--source", source])
    before, after = model_of(run), model_of(out)
    assert torch.equal(before["xyz"], after["xyz"]) and torch.equal(before["obj_dc"], after["obj_dc"])
    export.main(["-m", str(out), "--out", str(tmp_path / "again"), "--quiet"])  # an edited run is a run
    ids = np.load(tmp_path / "again" / "scene.ids.npy")
    np.testing.assert_array_equal(ids, np.load(tmp_path / "scene.ids.npy"))
