"""The gate: nobody without the token, no page of another site, and on this machine no other name."""

import pytest

import view
from gradiseg.viewer.gate import COOKIE, Gate

LOCAL = {"Host": "localhost:8080"}
REMOTE = {"Host": "box:8080"}
TOKEN = Gate("secret")


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "localhost"])
def test_this_machine_comes_in(host: str) -> None:
    assert Gate().answer("/", {"host": host}) is None
    assert Gate().answer("/", {"Host": host, "Origin": f"http://{host}"}) is None


@pytest.mark.parametrize(
    "headers",
    [{}, {"Host": "evil.example"}, {**LOCAL, "Origin": "http://evil.example"}, {**LOCAL, "Origin": "null"}],
)
def test_other_sites_do_not(headers: dict[str, str]) -> None:
    answer = Gate().answer("/", headers)
    assert answer is not None and answer.status == 403


@pytest.mark.parametrize("token", ["secret", "a+b", "a b&c%d", 'ü;"='])
def test_the_token_becomes_a_cookie_and_leaves_the_address(token: str) -> None:
    gate, address = view.gate_of(view.ViewParams(host="box", token=token))
    answer = gate.answer(address.removeprefix("http://box:8080"), REMOTE)
    assert answer is not None and answer.status == 303 and answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert gate.answer("/", {**REMOTE, "Cookie": f"other=1; {cookie.partition(';')[0]}"}) is None


@pytest.mark.parametrize(
    ("path", "cookie"),
    [
        ("/", ""),
        ("/?token=", ""),
        ("/?token=Secret", ""),
        ("/", f"{COOKIE}="),
        ("/", f"{COOKIE}=wrong"),
        ("/", "secret"),
        ("/", "\x00;;="),
    ],
)
def test_nothing_else_opens_it(path: str, cookie: str) -> None:
    answer = TOKEN.answer(path, {**REMOTE, "Cookie": cookie})
    assert answer is not None and answer.status == 403 and "secret" not in answer.text


def test_not_even_the_token_lets_another_site_in() -> None:
    headers = {**REMOTE, "Cookie": f"{COOKIE}=secret", "Origin": "http://evil.example"}
    answer = TOKEN.answer("/", headers)
    assert answer is not None and answer.status == 403
