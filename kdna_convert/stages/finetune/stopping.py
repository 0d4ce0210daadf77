"""Ctrl-C and SIGTERM between two steps: a signal in the middle of one would leave half of the tensors changed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Asked:
    """Whether somebody wants this to end."""

    to_stop: bool = False


@contextmanager
def stopping() -> Iterator[Asked]:
    """Notes the first signal instead of obeying it; the second one interrupts at once. Elsewhere than in the main
    thread, where Python handles no signals, it notes none.
    """
    asked = Asked()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.to_stop:
            raise KeyboardInterrupt("stopped at once")
        asked.to_stop = True

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
