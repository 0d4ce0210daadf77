"""Delay Ctrl-C and SIGTERM until the end of a step, so that no step changes only some of the tensors."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """Whether a signal asked the fine-tune to stop."""

    received: bool = False


@contextmanager
def stopping() -> Iterator[StopRequest]:
    """Record the first signal in the request; the second interrupts at once. Works only in the main thread."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.received:
            raise KeyboardInterrupt("stopped at once")
        request.received = True

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
