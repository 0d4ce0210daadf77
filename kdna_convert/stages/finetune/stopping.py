"""Ctrl-C and SIGTERM take effect between two steps: within one they would leave half of the tensors changed."""

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

    made: bool = False


@contextmanager
def stopping() -> Iterator[StopRequest]:
    """Note the first signal; the second interrupts at once. Outside the main thread no signal is noted."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.made:
            raise KeyboardInterrupt("stopped at once")
        request.made = True

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
