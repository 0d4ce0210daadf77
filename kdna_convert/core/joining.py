"""How the processes of a launch find each other, and how each learns of an error in another.

All of them reach one store, a few names and values: torchrun's, or that of the first process. A process that fails
writes its error there. The others would wait for it: while they join, they look there; later the lost connection wakes
them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from . import errors
from .errors import DataError, KdnaError, cause

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

JOIN = 300.0  # seconds to wait for the others
_TELL = 60.0  # seconds to wait for the store, to write an error there
_LATE = 1.0  # seconds to wait for the reason of a lost connection
_READ = 2.0  # seconds that a process which has the store gives the others to read an error
_ERROR, _ARRIVED = "kdna/error", "kdna/arrived"
# What the messages of torch hold when a connection is lost, or the launcher ends a DataLoader's workers.
_LOST = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "remote process exited",
    "timed out waiting",
    "socket timeout",
    "signal: terminated",
)


class Meeting:
    """The store that the processes of a launch share."""

    def __init__(self, store: Store, processes: int) -> None:
        self.store, self.processes = store, processes

    def wait(self, seconds: float) -> None:
        """Wait until every process is here. Raises DataError KD421 where some are not, and what another one raised."""
        until = time.monotonic() + seconds
        arrived = self.store.add(_ARRIVED, 1)
        while arrived < self.processes:
            if (error := self.error()) is not None:
                raise error
            if time.monotonic() > until:
                missing = f"{self.processes - arrived} of {self.processes} processes did not start in {seconds:.0f} s"
                raise _absent(missing)
            time.sleep(0.1)
            arrived = self.store.add(_ARRIVED, 0)

    def tell(self, error: KdnaError, number: int) -> None:
        """Let the other processes raise this error. The first one counts."""
        if not self.store.check([_ERROR]):
            message = f"{error.message} (process {number}, on {socket.gethostname()})"
            self.store.set(_ERROR, json.dumps([type(error).__name__, error.code, message]))

    def error(self) -> KdnaError | None:
        """The error that another process told."""
        if not self.store.check([_ERROR]):
            return None
        kind, code, message = json.loads(self.store.get(_ERROR))
        found: type[KdnaError] = getattr(errors, kind, DataError)
        return found(code, message)

    def instead_of(self, error: Exception) -> KdnaError | None:
        """The reason for a lost connection; None where `error` is something else."""
        if isinstance(error, KdnaError) or not any(part in str(error).lower() for part in _LOST):
            return None
        told: KdnaError | None = None
        with suppress(Exception):  # the store may be lost, too
            until = time.monotonic() + _LATE
            while (told := self.error()) is None and time.monotonic() < until:
                time.sleep(0.1)
        return told or DataError("KD421", f"another process ended; its own output says why ({cause(error)})")


def meet(seconds: float) -> Meeting | None:
    """Reach the store of the launch; None where the launcher does not say where it is.

    Raises DataError KD421 where nothing answers.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, processes = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
    except Exception as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise _absent(f"nothing answers at {place}, or not all processes started, in {seconds:.0f} s") from error
    return Meeting(store, processes)


def tell_others(error: KdnaError, number: int) -> None:
    """Let the processes that wait for this one to join raise its error."""
    try:
        meeting = meet(_TELL)
        if meeting is None:
            return
        meeting.tell(error, number)
    except Exception:  # noqa: BLE001 - this process ends with its own error
        return
    if number == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        time.sleep(_READ)


def _absent(why: str) -> DataError:
    way_out = "start the command on every node, with the same address and number of processes"
    return DataError("KD421", f"the processes do not find each other: {why}; {way_out}")
