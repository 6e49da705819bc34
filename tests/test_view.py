"""view.py without a browser: what it refuses in one sentence; that what it saves is what edit.py makes."""

import json
import socket
from pathlib import Path

import pytest

import edit
import view
from benchmarks import bench_viewer
from gradiseg.selection.free_view import entry_of
from gradiseg.viewer import server
from gradiseg.viewer.drawing import Mode
from gradiseg.viewer.runs import find_runs
from gradiseg.viewer.session import Session
from tests.disc_scene import DISCS, ITERATION, projected_centre, write_run, write_scene
from utils.errors import UserError

RED, BLUE = (disc.identity for disc in DISCS.values())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two discs."""
    scene, folder = (tmp_path_factory.mktemp(name) for name in ("scene", "run"))
    write_scene(scene)
    write_run(folder, scene)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and its content."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_what_the_viewer_saves_is_what_edit_makes_of_its_recipe(run: Path, tmp_path: Path) -> None:
    workspace = view.open_workspace(["-m", str(run)])
    session = Session(workspace)
    session.look(entry_of(workspace.views["view.1"]))
    session.click(*projected_centre(DISCS["red disc"], "view.1"))
    assert session.selection == RED
    session.edit("recolour", hue=75.0)
    session.rename(RED, "disc")
    x, y = projected_centre(DISCS["blue disc"], "view.1")
    session.box((x - 8.5, y - 7), (x + 6, y + 9.25))
    session.edit("duplicate", translation=[0.1, 0.2, -0.3])
    session.edit("transform", degrees=33.3, axis=[0.1, 0.7, 0.2], scale=1.7)
    saved = workspace.save("viewed")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(workspace.recipe())
    edit.main(["-m", str(run), "--recipe", str(recipe), "--out", str(tmp_path / "edited"), "--quiet"])
    assert files(tmp_path / "edited") == files(saved)
    assert len(json.loads(recipe.read_text())["operations"]) == 4


def test_runs_below_a_folder_are_found_with_pictures_and_scores(tmp_path: Path) -> None:
    for name in ("b/second", "a"):
        write_run(tmp_path / name, tmp_path)
    (tmp_path / "a/results.json").write_text('{"psnr": 31.257, "split": "test"}')
    picture = tmp_path / f"a/test/ours_{ITERATION}/renders/00000.png"
    picture.parent.mkdir(parents=True)
    picture.touch()
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/cfg_args").write_text("Namespace()")
    (tmp_path / "b/second/results.json").write_text("[]")
    found = find_runs(tmp_path)
    assert [(run.name, run.scores, run.picture) for run in found] == [
        ("a", "PSNR 31.26", picture),
        ("b/second", "", None),
    ]
    with pytest.raises(UserError, match="holds no run"):
        find_runs(tmp_path / "unfinished")


def test_the_benchmark_of_pictures(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_viewer, "seconds_to_start", lambda run, port, size: {"address": 2.5})
    flags = ["-m", str(run), "--size", "64", "48", "--frames", "2", "--num_gaussians", "100", "4000"]
    monkeypatch.setattr("sys.argv", ["bench_viewer.py", *flags, "--json", str(tmp_path / "out.json")])
    bench_viewer.main()
    record = json.loads((tmp_path / "out.json").read_text())
    results = record["results"]
    assert record["seconds_to_start"] == {"address": 2.5}
    assert [result["num_gaussians"] for result in results[1:]] == [100, 4000]
    assert all(result[mode.value]["ms_moving"] > 0 for result in results for mode in Mode)


def test_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port} cannot be had.*--port"):
            server.check_port("127.0.0.1", port)


def test_without_viser_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[viewer\]'"):
        view.main(["-m", str(run)])


def test_a_run_without_a_classifier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_scene(tmp_path / "scene")
    write_run(tmp_path / "run", tmp_path / "scene")
    next((tmp_path / "run").rglob("classifier.pth")).unlink()
    with pytest.raises(UserError, match=r"classifier\.pth: not there"):
        view.open_workspace(["-m", str(tmp_path / "run")])


def test_another_host_asks_for_a_token() -> None:
    gate, address = view.gate_of(view.ViewParams())
    assert gate.token is None and address == "http://localhost:8080"
    gate, address = view.gate_of(view.ViewParams(host="box", token="secret"))
    assert gate.token == "secret" and address == "http://box:8080/?token=secret"
    assert (
        view.gate_of(view.ViewParams(host="2001:db8::5", token="x"))[1]
        == "http://[2001:db8::5]:8080/?token=x"
    )
    drawn = {view.gate_of(view.ViewParams(host="0.0.0.0"))[0].token for _ in range(2)}
    assert len(drawn) == 2 and all(token and len(token) > 16 for token in drawn)
