"""The server with viser, without a browser: the gate stands before pages and sockets alike."""

import importlib.util
import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("viser") is None, reason="viser is not installed")

from gradiseg.viewer.gate import Gate  # noqa: E402
from gradiseg.viewer.server import check_port, start_server  # noqa: E402
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
