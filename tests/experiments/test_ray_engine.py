"""The engine on a real cluster of two nodes on this machine, one of which dies on the way."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments import engines
from experiments.processes import DONE, FAILED
from tests.experiments.fake_runs import run_of, training_run, wait_for
from tests.experiments.test_engines import options
from utils.errors import UserError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

from benchmarks.bench_experiments import kill_node  # noqa: E402
from experiments import ray_engine  # noqa: E402
from experiments.ray_engine import Ray, connect  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no runs, and two nodes that do one each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def engine(cluster: Any) -> Iterator[Ray]:
    """Connected to it."""
    yield Ray(cluster.address)
    ray.shutdown()


def test_failures_are_outcomes_and_the_other_runs_go_on(engine: Ray, tmp_path: Path) -> None:
    assert (engine.threads, engine.gpus) == (1, 0)
    good = run_of(tmp_path / "good", step="print('threads', os.environ['OMP_NUM_THREADS'])")
    bad = run_of(tmp_path / "bad", step="sys.exit('the file is torn')")
    lost = replace(good, folder=tmp_path / "lost", scene=tmp_path / "not on this node")
    outcomes = {run.folder.name: outcome for run, outcome in engine.outcomes([good, bad, lost])}
    assert {name: outcome.state for name, outcome in outcomes.items()} == {
        "good": DONE,
        "bad": FAILED,
        "lost": FAILED,
    }
    assert "threads 1\n" in good.log.read_text()
    assert "the file is torn" in outcomes["bad"].message
    assert f"not on this node: no such folder on {socket.gethostname()}" in outcomes["lost"].message


def test_a_node_without_this_code_says_so(
    engine: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "ROOT", tmp_path / "elsewhere")
    ((_, outcome),) = engine.outcomes([run_of(tmp_path / "run", step="")])
    assert outcome.state == FAILED and "Every node needs this repository" in outcome.message


def test_closing_the_engine_stops_runs_with_checkpoints(engine: Ray, tmp_path: Path) -> None:
    run, short = training_run(tmp_path / "run", iterations=6000), training_run(tmp_path / "short")
    outcomes = engine.outcomes([run, short])
    assert next(outcomes)[0] is short
    wait_for(run.log, "started\n")
    outcomes.close()
    end = time.monotonic() + 20
    while not list(run.folder.glob("chkpnt*.pth")):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_runs_of_a_node_that_dies_go_on_from_their_checkpoints(
    engine: Ray, cluster: Any, tmp_path: Path
) -> None:
    runs = [training_run(tmp_path / name, iterations=300, interval=20) for name in "abc"]
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_node, cluster.list_all_nodes()[1], runs, 1)
        assert [outcome.state for _, outcome in engine.outcomes(runs)] == [DONE] * 3
        assert killed.result() >= 4  # the node, its worker, ours, and the command
    assert sorted(run.log.read_text().count("goes on from chkpnt") for run in runs) == [0, 0, 1]
    for run in runs:
        done = json.loads((run.folder / "weights").read_text())
        assert len(done) == 300 and len(set(done)) == len(run.record()["attempts"])


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:9", "nothing answers there"),
        ("nowhere.invalid:6379", "nothing answers there"),
        ("somewhere", "give HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_one_sentence(address: str, problem: str) -> None:
    with pytest.raises(UserError, match=f"--address {address}: .*{problem}") as error:
        engines.choose(options("--address", address))
    assert "\n" not in str(error.value)


def test_a_cluster_of_another_version_is_one_sentence(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.utils.compute_version_info", lambda: ("1.0", "3.1"))
    with pytest.raises(UserError, match="another version of Ray or Python than") as error:
        connect(cluster.address)
    assert "\n" not in str(error.value)
