"""Who may talk to the page: a browser of this machine that was given the token. Everybody else gets 403.

Any site that the user opens can make the browser send requests to 127.0.0.1, and any program of this machine can too.
So each request, also for a websocket, must name this address as its host, must not come from another site, and must
carry the token: in the first address, which sets a cookie, and then in the cookie. Other sites do not get that cookie
sent (SameSite), and no script reads it (HttpOnly).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from secrets import compare_digest
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PARAMETER = "token"
# The page loads nothing from elsewhere and is in no frame. Vue compiles its templates in the browser.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data:; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True)
class Guard:
    """An ASGI application that lets requests for `app` pass, or refuses them.

    Attributes:
        app: What is guarded.
        token: The secret of this run.
        port: Where the page is served.
    """

    app: App
    token: str
    port: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif not self._is_for_us(scope):
            await _refuse(scope, receive, send, "this page is for a browser at 127.0.0.1 only")
        elif self._same(_cookie(scope, self.cookie)):
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "http" and self._same(_parameter(scope)):
            await self._welcome(send)
        else:
            await _refuse(scope, receive, send, "the token is missing or wrong; open the address that kdna printed")

    @property
    def cookie(self) -> str:
        """Its name: one for each port, since cookies do not tell ports apart."""
        return f"kdna-explore-{self.port}"

    def _is_for_us(self, scope: Scope) -> bool:
        hosts = {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost")}
        origin = _header(scope, b"origin")
        return _header(scope, b"host") in hosts and (origin is None or origin in {f"http://{host}" for host in hosts})

    def _same(self, given: str | None) -> bool:
        return given is not None and compare_digest(given.encode(), self.token.encode())

    async def _welcome(self, send: Send) -> None:
        """Set the cookie, and go to the address without the token."""
        cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode()), (b"cache-control", b"no-store"), *HEADERS]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    """403, also for a websocket: a server answers so if it is closed before it is accepted."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"), *HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": f"kdna explore: {why}\n".encode()})


def _with_headers(send: Send) -> Send:
    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return sent


def _header(scope: Scope, name: bytes) -> str | None:
    """A header that is there once; None for none, and for one that is repeated."""
    values = [value for key, value in scope["headers"] if key.lower() == name]
    return values[0].decode("latin-1") if len(values) == 1 else None if not values else ""


def _cookie(scope: Scope, name: str) -> str | None:
    try:
        morsel = SimpleCookie(_header(scope, b"cookie") or "").get(name)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _parameter(scope: Scope) -> str | None:
    values = parse_qs(scope.get("query_string", b"").decode("latin-1")).get(PARAMETER, [])
    return values[0] if len(values) == 1 else None
