"""Who may come in: pages of the viewer itself, and from other machines only with the token.

Browsers let any page open a connection to any address, this machine's own too, and say where it came from in
`Origin`. So what comes from another page is refused, and without a token what calls this machine by another
name than its own (a name that an attacker's server resolves to it).
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, unquote, urlsplit

COOKIE = "gradiseg_token"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer in the place of what was asked for."""

    status: HTTPStatus
    text: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Gate:
    """Lets requests in. token: None where the server is bound to this machine only."""

    token: str | None = None

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        """None for a request that may come in; names of `headers` are of any case."""
        headers = {name.lower(): value for name, value in headers.items()}
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return refusal("This page belongs to another site.")
        if self.token is None:
            name = urlsplit(f"//{host}").hostname
            return (
                None if name in LOOPBACK else refusal("Open it as http://localhost, on the machine itself.")
            )
        given = parse_qs(urlsplit(path).query).get("token", [""])[0]
        if self._fits(given):
            cookie = f"{COOKIE}={quote(given, safe='')}; HttpOnly; SameSite=Strict; Path=/"
            return Answer(HTTPStatus.SEE_OTHER, "", {"Location": "/", "Set-Cookie": cookie})
        if self._fits(cookie_of(headers.get("cookie", ""))):
            return None
        return refusal("Open the address that view.py has printed, with its token.")

    def _fits(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


def refusal(text: str) -> Answer:
    """403 with a sentence."""
    return Answer(HTTPStatus.FORBIDDEN, f"{text}\n", {"Content-Type": "text/plain; charset=utf-8"})


def cookie_of(header: str) -> str:
    """The token in a `Cookie` header, empty where there is none."""
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return unquote(found.value) if found else ""
