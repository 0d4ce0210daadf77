"""The guard of the page: only this host, only this page's own requests, only with the token; also for websockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kdna_convert.explore.guard import Guard

TOKEN, PORT = "s3cret-of-this-run", 8123
HOST = (b"host", f"127.0.0.1:{PORT}".encode())
COOKIE = (b"cookie", f"kdna-explore-{PORT}={TOKEN}".encode())
OWN = (b"origin", f"http://127.0.0.1:{PORT}".encode())


def answered(*headers: tuple[bytes, bytes], kind: str = "http", query: str = "") -> tuple[bool, list[Any]]:
    """Whether a request reached the guarded application, and what was sent."""
    reached, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)
        await send({"type": f"{kind}.response.start" if kind == "http" else "websocket.accept", "status": 200})

    async def receive() -> Any:
        return {"type": f"{kind}.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "headers": [*headers], "query_string": query.encode(), "path": "/anything"}
    asyncio.run(Guard(app, TOKEN, PORT)(scope, receive, send))
    return bool(reached), sent


WRONG = {
    "no token": [HOST],
    "another token": [HOST, (b"cookie", f"kdna-explore-{PORT}=s3cret".encode())],
    "an empty token": [HOST, (b"cookie", f"kdna-explore-{PORT}=".encode())],
    "the token of another port": [HOST, (b"cookie", f"kdna-explore-1={TOKEN}".encode())],
    "a name that leads here": [(b"host", f"evil.example:{PORT}".encode()), COOKIE],
    "another port": [(b"host", b"127.0.0.1:80"), COOKIE],
    "no host": [COOKIE],
    "two hosts": [HOST, (b"host", b"evil.example"), COOKIE],
    "another site": [HOST, COOKIE, (b"origin", b"https://evil.example")],
    "a page without a site": [HOST, COOKIE, (b"origin", b"null")],
    "two sites": [HOST, COOKIE, OWN, (b"origin", b"https://evil.example")],
}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("name", WRONG)
def test_everybody_else_is_refused(name: str, kind: str) -> None:
    reached, sent = answered(*WRONG[name], kind=kind)
    assert not reached
    if kind == "http":
        assert sent[0]["status"] == 403
        assert TOKEN.encode() not in b"".join(value for message in sent for value in [message.get("body", b"")])
    else:
        assert [message["type"] for message in sent] == ["websocket.close"]  # a server answers 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("extra", [[], [OWN]])
@pytest.mark.parametrize("name", [b"127.0.0.1", b"localhost"])
def test_a_browser_with_the_cookie_passes(kind: str, extra: Any, name: bytes) -> None:
    assert answered((b"host", name + f":{PORT}".encode()), COOKIE, *extra, kind=kind)[0]


def test_the_first_address_sets_a_cookie_and_leads_to_one_without_the_token() -> None:
    reached, sent = answered(HOST, query=f"token={TOKEN}")
    headers = dict(sent[0]["headers"])
    assert (reached, sent[0]["status"], headers[b"location"]) == (False, 303, b"/")
    cookie = headers[b"set-cookie"].decode()
    assert cookie.startswith(f"kdna-explore-{PORT}={TOKEN};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


@pytest.mark.parametrize("query", ["token=s3cret", "token=", f"token={TOKEN}&token=other", f"other={TOKEN}"])
def test_a_wrong_token_in_the_address_is_refused(query: str) -> None:
    reached, sent = answered(HOST, query=query)
    assert (reached, sent[0]["status"]) == (False, 403)


def test_the_address_with_the_token_is_for_this_host_only_and_opens_no_websocket() -> None:
    assert answered((b"host", b"evil.example"), query=f"token={TOKEN}")[1][0]["status"] == 403
    assert answered(HOST, query=f"token={TOKEN}", kind="websocket")[1][0]["type"] == "websocket.close"


def test_answers_forbid_other_sources_and_frames() -> None:
    for sent in (answered(HOST, COOKIE)[1], answered(HOST)[1]):
        policy = dict(sent[0]["headers"])[b"content-security-policy"].decode()
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
