"""Serve the page on 127.0.0.1 until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

from ..core.errors import PlanError
from .guard import PARAMETER, Guard
from .session import SteeringSession

ADDRESS = "127.0.0.1"
GRACE = 1  # seconds for open connections at the end
BACKLOG = 128


def require_extra() -> None:
    """Raise PlanError KD513 if NiceGUI is not installed."""
    if find_spec("nicegui") is None:
        raise PlanError("KD513", "nicegui is not installed: pip install 'kdna-convert[explore]'")


def bound_socket(port: int) -> socket.socket:
    """A socket of this machine alone, not yet answering; 0 takes a free port.

    Raises:
        PlanError: KD513 for a port that cannot be had.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((ADDRESS, port))
    except OSError as error:
        made.close()
        way_out = "choose another --port, or none for a free one"
        raise PlanError("KD513", f"port {port} of {ADDRESS} cannot be used: {error.strerror}; {way_out}") from None
    return made


def serve(session: SteeringSession, place: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve the page of a session until Ctrl-C. `ready` is called with its address, token included."""
    import uvicorn
    from fastapi import FastAPI
    from nicegui import ui

    from .steering_page import steering_page

    token, port = secrets.token_urlsafe(32), place.getsockname()[1]
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    ui.run_with(
        app,
        root=lambda: steering_page(session),
        title=f"{session.exploration.model} · kdna",
        language="en-US",
        dark=None,
        favicon="data:,",
        tailwind=False,
        show_welcome_message=False,
    )
    config = uvicorn.Config(
        Guard(app, token, port),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    place.listen(BACKLOG)
    ready(f"http://{ADDRESS}:{port}/?{PARAMETER}={token}")
    try:
        with suppress(KeyboardInterrupt), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # NiceGUI looks at every object, also torch's deprecated ones
            uvicorn.Server(config).run(sockets=[place])
    finally:
        if session.outputs.converts:
            session.outputs.stop()
            sys.stderr.write("kdna: the running conversion was ended; nothing was written\n")
