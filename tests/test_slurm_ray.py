"""scripts/slurm_ray.sh with stand-ins for SLURM and Ray: what starts where. Syntax of all shell scripts."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STUBS = {
    "scontrol": 'echo "$SLURM_JOB_NODELIST" | tr , "\\n"',
    "getent": "echo 127.0.0.1 STREAM node",
    # Runs the command here, and notes on which nodes it would have run.
    "srun": """
        flags=()
        while [[ $1 == --* ]]; do flags+=("$1" "$2"); shift 2; done
        echo "srun ${flags[*]}" >>"$CALLS"
        exec "$@" """,
    # Answers at its port, as Ray's head does, until it is killed.
    "ray": """
        echo "ray $*" >>"$CALLS"
        [[ $* == *--head* ]] || exec sleep 60
        port=$(sed -E 's/.*--port ([0-9]+).*/\\1/' <<<"$*")
        exec python3 -c "import socket, sys, time; s = socket.create_server(('', $port)); time.sleep(60)" """,
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Environment of a job on three nodes."""
    for name, text in STUBS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    with socket.create_server(("", 0)) as free:
        port = str(free.getsockname()[1])
    settings = {"SLURM_JOB_NODELIST": "a1,a2,a3", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "2"}
    ours = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY": "ray", "PORT": port}
    return {**os.environ, **settings, **ours, "CALLS": str(tmp_path / "calls")}


def start(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """The script with a command."""
    script = ["bash", str(ROOT / "scripts/slurm_ray.sh"), *command]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)


def test_ray_starts_on_every_node_and_the_command_gets_its_address(slurm: dict[str, str]) -> None:
    when_all_are_there = 'while (($(grep -c ^ray "$CALLS") < 2)); do sleep .05; done; echo "$@"'
    done = start(slurm, "bash", "-c", when_all_are_there, "-", "train", "all scenes")
    address = f"127.0.0.1:{slurm['PORT']}"
    assert done.stdout == f"train all scenes --address {address}\n", done.stderr
    calls = Path(slurm["CALLS"]).read_text().splitlines()
    assert "srun --nodes 1 --ntasks 1 --nodelist a1" in calls
    assert "srun --nodes 2 --ntasks 2 --exclude a1" in calls
    head, nodes = sorted(
        (call for call in calls if call.startswith("ray")), key=lambda call: "--head" not in call
    )
    assert "--num-cpus 8 --num-gpus 2" in head and head.endswith("--block")
    assert f"--address {address} --num-cpus 8 --num-gpus 2 --block" in nodes


def test_the_status_is_that_of_the_command(slurm: dict[str, str]) -> None:
    assert start(slurm | {"SLURM_JOB_NODELIST": "a1"}, "false").returncode == 1


def test_outside_a_job_it_says_what_to_do(slurm: dict[str, str]) -> None:
    done = start({name: value for name, value in slurm.items() if name != "SLURM_JOB_NODELIST"}, "true")
    assert done.returncode == 2 and "--address local" in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True).stderr == ""
