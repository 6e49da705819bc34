"""The server with viser, without a browser: the gate stands before pages and sockets alike."""

import importlib.util
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from http.client import HTTPConnection
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("viser") is None, reason="viser is not installed")

from gradiseg.viewer.gate import Gate  # noqa: E402
from gradiseg.viewer.server import Client, check_port, start_server  # noqa: E402
from tests.labelled_scene import labelled_scene  # noqa: E402
from utils.errors import UserError  # noqa: E402

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server with a token."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start_server("127.0.0.1", port, Gate("secret"))
    assert server.request_share_url() is None  # no address on the Internet, whoever asks
    yield port
    server.stop()


def answer(port: int, path: str = "/", **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    got = connection.getresponse()
    return got.status, dict(got.getheaders())


def test_pages_and_sockets_ask_for_the_token(port: int) -> None:
    assert answer(port)[0] == 403
    assert answer(port, **UPGRADE)[0] == 403
    assert answer(port, "/?token=wrong")[0] == 403
    status, headers = answer(port, "/?token=secret")
    assert status == 303
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert answer(port, Cookie=cookie)[0] == 200
    assert answer(port, Cookie=cookie, **UPGRADE)[0] == 101
    assert answer(port, Cookie=cookie, Origin="http://evil.example", **UPGRADE)[0] == 403
    assert answer(port, "/../../../etc/hostname", Cookie=cookie)[0] == 404


def test_a_second_server_finds_the_port_taken(port: int) -> None:
    with pytest.raises(UserError, match="--port"):
        check_port("127.0.0.1", port)


@pytest.mark.parametrize("gaussians", [1, 60])
def test_flying_to_an_object_stops_before_it(gaussians: int) -> None:
    model = labelled_scene().rows(torch.arange(60 - gaussians, 60))
    camera = SimpleNamespace(position=np.array([9.0, 9.0, 9.0]), fov=1.0)
    handle = SimpleNamespace(camera=camera, atomic=nullcontext)
    Client.fly_to(SimpleNamespace(session=SimpleNamespace(model=model), handle=handle), 1)  # type: ignore[arg-type]
    away = float(np.linalg.norm(camera.position - camera.look_at))
    assert 0.1 < away < 9
