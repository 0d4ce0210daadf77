"""Where a Ray cluster is, and whether something answers there."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from ...core.errors import FolderError

CONNECT = 5.0  # seconds for the cluster to answer
DEFAULT_PORT = 6379
CORRECT = "start the cluster (ray start --head), or give another --address: local starts one here"


def used_address(address: str | None) -> tuple[str | None, str]:
    """The address that Ray will use, as Ray finds it, and what says so; None where it starts a cluster."""
    if address in (None, "auto"):
        address = os.environ.get("RAY_ADDRESS") or address
        if address not in (None, "auto"):
            return address, " (RAY_ADDRESS)"
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        latest = Path(folder) / "ray" / "ray_current_cluster"
        with suppress(OSError):
            return latest.read_text().strip() or address, f" ({latest}, the latest cluster of this machine)"
    return (None if address == "local" else address), ""


def require_reachable(address: str | None, source: str) -> None:
    """Raise FolderError KD615 where nothing answers, which Ray itself finds after a minute."""
    if address in (None, "auto"):
        return
    silent = silence(str(address))
    if silent is not None:
        raise FolderError("KD615", f"no Ray cluster answers at {address}{source}: {silent}; {CORRECT}")


def silence(address: str) -> str | None:
    """Why nothing answers at HOST:PORT or ray://HOST:PORT; None where something does."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        number = int(port) if host else DEFAULT_PORT
        socket.create_connection((host or port, number), CONNECT).close()
    except TimeoutError:
        return f"no answer in {CONNECT:g} seconds"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except (ValueError, OverflowError):
        return "this is not HOST:PORT"
    return None
