"""A training that shows itself in a browser (`train.py --viewer`).

Server and pictures are a process of their own, at a low priority. When somebody looks, it asks for the model
through a pipe, and the training answers between two iterations with a copy. The training waits for nothing
and draws no random number for it: its results keep their bits. Where nobody looks it copies nothing.
"""

import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from arguments import DeviceParams, ModelParams
from gradiseg.evaluation.text import TextParams, marker_of
from gradiseg.objective import Losses
from gradiseg.training import Training
from gradiseg.viewer.following import progress_of, run_of_state, show
from gradiseg.viewer.gate import Gate
from gradiseg.viewer.server import Viewer, check_port, require_viser, start_server
from gradiseg.viewer.workspace import Workspace
from utils.errors import UserError
from utils.log import logger

HOST = "127.0.0.1"
SECONDS = 2.0  # between two states at least
PATIENCE = 10  # and so many times as long as one takes to come: copying is a tenth of the time at most
NICENESS = 10  # of the process that draws: the training goes first
SECONDS_TO_END = 5.0
ASK = b"state"


def check_viewer(port: int) -> None:
    """Raise a UserError where no viewer can be had at a port of this machine."""
    require_viser("--viewer")
    check_port(HOST, port, "--viewer")


class Lender:
    """The training's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._is_open = True
        self._sending: threading.Thread | None = None

    def lend(self, training: Training, losses: Losses) -> None:
        """Send the training as it is now, where somebody looks; to be called between two iterations."""
        try:
            if not self._is_open or not self._pipe.poll():
                return
            self._pipe.recv_bytes()
        except (EOFError, OSError):
            self._is_open = False
            logger.warning("The viewer has ended; the training goes on without it.")
            return
        state = copied(training, losses)
        self._sending = threading.Thread(target=self._send, args=(state,), name="lending", daemon=True)
        self._sending.start()

    def close(self) -> None:
        """End it, once what is on its way has arrived."""
        if self._sending is not None:
            self._sending.join(SECONDS_TO_END)
        self._pipe.close()

    def _send(self, state: dict[str, Any]) -> None:
        content = io.BytesIO()
        torch.save(state, content)
        with suppress(OSError, TypeError):  # who asked has gone, or the pipe was closed meanwhile
            self._pipe.send_bytes(content.getbuffer())


def copied(training: Training, losses: Losses) -> dict[str, Any]:
    """What is shown of a training, as copies on the CPU."""
    model = training.model
    return {
        "iteration": training.iteration,
        "loss": float(losses.total.detach()),
        "num_gaussians": model.num_gaussians,
        "model": {
            "max_sh_degree": model.max_sh_degree,
            "params": {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.params.items()},
        },
        "classifier": {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in training.classifier.state_dict().items()
        },
    }


@contextmanager
def shown(
    model: ModelParams, device: DeviceParams, port: int, iterations: int
) -> Iterator[Callable[[Training, Losses], None]]:
    """While it is entered, a process shows the training; gives what is to be called between iterations.

    The process ends with the training, however that ends: it reads the end of the pipe.
    """
    context = multiprocessing.get_context("spawn")  # threads do not live through a fork
    ours, theirs = context.Pipe()
    process = context.Process(
        target=serve, args=(theirs, model, device, port, iterations), name="viewer", daemon=True
    )
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which it inherits: Ctrl-C is for the training
    process.start()
    signal.signal(signal.SIGINT, handler)
    theirs.close()
    logger.info(f"The training shows at http://localhost:{port}, in some seconds.")
    lender = Lender(ours)
    try:
        yield lender.lend
    finally:
        lender.close()
        process.join(SECONDS_TO_END)
        process.kill()


def serve(pipe: Connection, model: ModelParams, device: DeviceParams, port: int, iterations: int) -> None:
    """The other process: show the training until its end of the pipe is closed."""
    os.nice(NICENESS)
    try:
        server = start_server(HOST, port, Gate())
    except UserError as error:
        logger.error(f"The viewer: {error}")
        return
    with suppress(EOFError, OSError):  # the training has ended
        state = asked(pipe)
        run = run_of_state(state, model, device)
        workspace = Workspace(run, lambda: marker_of(TextParams(), run.background.device)[0])
        workspace.note = progress_of(state, iterations)
        follow(pipe, workspace, Viewer(server, workspace), iterations)
    server.stop()


def follow(pipe: Connection, workspace: Workspace, viewer: Viewer, iterations: int) -> None:
    """Show the newest state to those who look, again and again; EOFError or OSError at the training's end."""
    pause = SECONDS
    while not pipe.poll(pause):  # nothing comes unasked: what can be read is the end
        if not viewer.clients:
            continue
        start = time.monotonic()
        state = asked(pipe)
        pause = max(SECONDS, PATIENCE * (time.monotonic() - start))
        show(workspace, state, progress_of(state, iterations))


def asked(pipe: Connection) -> dict[str, Any]:
    """The training's state, which comes between two of its iterations."""
    pipe.send_bytes(ASK)
    state: dict[str, Any] = torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=True)
    return state
