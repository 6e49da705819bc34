"""edit.py: operations on the command line, recipes, and what is saved."""

import json
from pathlib import Path

import pytest
import torch

import edit
from gradiseg.editing.operations import Recolour, Remove, Transform
from scene.ply import read_ply
from tests.disc_scene import ITERATION, write_run, write_scene
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two discs, ids 3 and 5."""
    root = tmp_path_factory.mktemp("edit")
    write_scene(root / "scene")
    write_run(root / "run", root / "scene")
    return root / "run"


def test_flags_are_fields_of_a_recipe() -> None:
    own, operations = edit.split_operations(
        ["-m", "run", "transform", "--select", "4", "--translation", "[0, 1, 0]", "remove", "--select=keep"]
    )
    assert own == ["-m", "run"]
    assert operations == [Transform(select=4, translation=[0, 1, 0]), Remove(select="keep")]
    turned = ["transform", "--select", "4", "--degrees", "-90", "recolour", "--select", "2"]
    assert edit.split_operations(turned)[1] == [Transform(select=4, degrees=-90), Recolour(select=2)]
    assert edit.split_operations(["-m", "keep", "--recipe", "remove"]) == (
        ["-m", "keep", "--recipe", "remove"],
        [],
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["remove", "--select"], "--field value expected"),
        (["remove", "4"], "--field value expected"),
        (["-m", "run", "--quiet", "remve", "--select", "4"], "'remve' is no operation. Nearest: 'remove'"),
        (["remove", "--colour", "4"], "no field 'colour'"),
    ],
)
def test_wrong_flags_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        edit.split_operations(words)


def test_the_result_is_a_run_with_its_recipe(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "red alone"
    steps = ["remove", "--select", "5", "recolour", "--select", "3", "--hue", "90"]
    edit.main(["-m", str(run), "--out", str(out), *steps])
    assert f"render.py -m '{out}'" in capsys.readouterr().out  # a command that can be pasted
    before = read_ply(run / "point_cloud" / f"iteration_{ITERATION}" / "point_cloud.ply")
    after = read_ply(out / "point_cloud" / f"iteration_{ITERATION}" / "point_cloud.ply")
    assert 0 < len(after["xyz"]) < len(before["xyz"])
    record = json.loads((out / "edit.json").read_text())
    assert [entry["operation"] for entry in record["operations"]] == ["remove", "recolour"]
    again = tmp_path / "again"
    edit.main(["-m", str(run), "--recipe", str(out / "edit.json"), "--out", str(again), "--quiet"])
    for name in ("point_cloud.ply", "classifier.pth"):
        path = Path("point_cloud") / f"iteration_{ITERATION}" / name
        assert (again / path).read_bytes() == (out / path).read_bytes()
    edit.main(["-m", str(out), "--quiet"])  # opens as a run


def test_an_object_is_extracted_and_inserted_from_there_or_from_a_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where relative paths begin
    edit.main(["-m", str(run), "--quiet", "extract", "--select", "5", "--to", "blue"])
    assert {path.name for path in Path("blue").iterdir()} >= {"point_cloud.ply", "classifier.pth"}
    assert not (run / "edits").exists()  # the model was not changed
    flags = ["-m", str(run), "--quiet", "remove", "--select", "5", "insert", "--source", "blue"]
    edit.main([*flags[:2], "--out", "back", *flags[2:]])
    edit.main(["-m", "back", "--out", "twice", "--quiet", "insert", "--source", str(run), "--select", "5"])
    saved = Path("point_cloud") / f"iteration_{ITERATION}"
    assert ("back" / saved / "point_cloud.ply").read_bytes() == (run / saved / "point_cloud.ply").read_bytes()
    classifiers = [torch.load(folder / saved / "classifier.pth") for folder in (run, Path("back"))]
    assert all(torch.equal(classifiers[0][name], classifiers[1][name]) for name in ("weight", "bias"))
    once, twice = (read_ply(folder / saved / "point_cloud.ply")["xyz"] for folder in (run, Path("twice")))
    assert torch.equal(twice, torch.cat([once, read_ply("blue/point_cloud.ply")["xyz"]]))
    recipe = json.loads(Path("back/edit.json").read_text())
    assert recipe["operations"][1]["source"] == str(tmp_path / "blue")


def test_an_edit_is_not_replaced_unasked(run: Path, tmp_path: Path) -> None:
    flags = ["-m", str(run), "--out", str(tmp_path / "out"), "--quiet", "remove", "--select", "5"]
    edit.main(flags)
    with pytest.raises(UserError, match="--overwrite"):
        edit.main(flags)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "test" / "ours_30").mkdir(parents=True)
    edit.main([*flags[:5], "--overwrite", *flags[5:]])
    assert (tmp_path / "out" / "notes.txt").is_file() and not (tmp_path / "out" / "test").exists()
    with pytest.raises(UserError, match="something else than an edit"):
        edit.main(["-m", str(run), "--out", str(run), "--quiet", "remove", "--select", "5"])


def test_without_an_operation_the_ids_are_listed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit.main(["-m", str(run), "--quiet"])
    printed = capsys.readouterr().out
    assert "Gaussians" in printed and {line.split()[0] for line in printed.splitlines()[1:]} == {"3", "5"}


def test_every_example_is_a_recipe() -> None:
    examples = sorted((Path(edit.__file__).parent / "config" / "edit").glob("*.json"))
    assert len(examples) >= 4
    operations = [edit.read_recipe(path) for path in examples]
    assert any(isinstance(step, Recolour) for steps in operations for step in steps)
    assert torch.is_grad_enabled()
