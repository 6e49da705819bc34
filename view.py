"""Shows a trained run in a browser, to look at it and to edit it; `-m` may also be a folder of runs.

python view.py -m output/run          http://localhost:8080
python view.py -m output              the runs in it, to choose from
"""

import utils.openmp  # noqa: F401  # isort: skip

import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from arguments import (
    OF_SAVED_MODEL,
    VIEWER_PORT,
    DeviceParams,
    ModelParams,
    OptimizationParams,
    final_iteration,
    names_of,
    option,
    parse,
    parse_with_run,
)
from arguments.cfg_args import CFG_ARGS
from gradiseg.evaluation.text import TextParams, marker_of
from gradiseg.finished.clicks import ClickParams
from gradiseg.trained import load_run
from gradiseg.viewer.following import Follower, run_of_checkpoint
from gradiseg.viewer.gate import LOOPBACK, Gate
from gradiseg.viewer.runs import find_runs
from gradiseg.viewer.server import Viewer, offer, require_viser, start_server
from gradiseg.viewer.workspace import Workspace
from scene.run_folder import RunFolder
from utils.errors import UserError, run_command


@dataclass
class ViewParams:
    """Where the viewer is to be found."""

    port: int = option(VIEWER_PORT, "port of the page", first=True, low=1, high=65535)
    host: str = option(
        "127.0.0.1", "address to listen at; others than this machine's ask for a token", first=True
    )
    token: str = option("", "the token; default: drawn anew")
    iteration: int = option(-1, "saved iteration; -1 = the latest", low=-1)


GROUPS = (ModelParams, DeviceParams, ViewParams, TextParams, ClickParams)
WITHOUT = (*OF_SAVED_MODEL, "text", "text_masks")


def open_workspace(argv: Sequence[str], shelf: Path | None = None) -> Workspace:
    """The run that the flags name, for the viewer; the runs below `shelf` lend it their objects."""
    groups = (*GROUPS, OptimizationParams)
    model, device, options, words, clicks, opt = parse_with_run(
        groups,
        argv,
        prog="view.py",
        description=__doc__ or "",
        without=(*WITHOUT, *names_of(OptimizationParams)),
    )
    folder = RunFolder(Path(model.model_path))
    is_training = options.iteration < 0 and not folder.finished and any(folder.path.glob("chkpnt*.pth"))
    run = run_of_checkpoint(model, device) if is_training else load_run(model, device, options.iteration)
    on = run.background.device
    workspace = Workspace(run, lambda: marker_of(words, on)[0], shelf, clicks.load(on))
    if is_training:
        Follower(workspace, final_iteration(opt.iterations, opt.schedule_scale)).start()
    return workspace


def gate_of(options: ViewParams) -> tuple[Gate, str]:
    """The gate, and the address to open."""
    if options.host in LOOPBACK:
        return Gate(), f"http://localhost:{options.port}"
    token = options.token or secrets.token_urlsafe(16)
    name = socket.gethostname() if options.host in ("0.0.0.0", "::") else options.host
    place = f"[{name}]" if ":" in name else name  # IPv6
    return Gate(token), f"http://{place}:{options.port}/?token={quote(token, safe='')}"


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    model, _, options, *_ = parse(GROUPS, argv, prog="view.py", description=__doc__ or "", without=WITHOUT)
    if not model.model_path:
        raise UserError("-m (--model_path) is required: the folder of a run, or of several runs.")
    require_viser()
    gate, address = gate_of(options)
    folder = Path(model.model_path)
    if (folder / CFG_ARGS).is_file():
        workspace = open_workspace(argv)
        server = start_server(options.host, options.port, gate)
        Viewer(server, workspace)
        print(f"{folder}, iteration {workspace.run.iteration}: {address}", flush=True)
    else:
        runs = find_runs(folder)
        server = start_server(options.host, options.port, gate)
        offer(server, runs, lambda path: open_workspace([*argv, "-m", str(path)], folder))
        print(f"{folder}, {len(runs)} runs: {address}", flush=True)
    try:
        server.sleep_forever()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    run_command(main)
