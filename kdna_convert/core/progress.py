"""Progress of long operations: a bar in a terminal or notebook, plain lines in a log file, or a logger.

A stage calls progress(what, done, total). `what` is the stage, or "stage: detail"; `total` is 0 where it is unknown.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from .processes import is_first
from .shown import shown

if TYPE_CHECKING:  # pydantic takes a tenth of a second, and --help needs none of it
    from .specs import Progress

Clock = Callable[[], float]
LOGGER = logging.getLogger("kdna_convert")
LOADING = "load the model"  # the first stage
EVERY = 10.0  # seconds between two plain lines of a stage
REDRAW = 0.1  # seconds between two drawings of the bar
CELLS = 24  # columns of the bar
NOTEBOOK_COLUMNS = 100


class Reporter:
    """Receives progress, and measures how long the current stage has run and how long it may still take."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.began = self.stage_began = clock()
        self.stage, self.detail, self.done, self.total = "", "", 0, 0
        self.first = 0  # how many were done when the stage began: a resumed one does not begin at 0

    def __call__(self, what: str, done: int, total: int) -> None:
        stage, _, detail = shown(what).partition(": ")
        now = self.clock()
        if stage != self.stage or done < self.done:
            self.stage_began, self.first = now, done
        self.stage, self.detail, self.done, self.total = stage, detail, done, total
        self.show(now)

    def show(self, now: float) -> None:
        """Report the current state. Called whenever a stage reports, which may be thousands of times a second."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the cursor at the beginning of an empty line."""

    def left(self, now: float) -> float | None:
        """Seconds until the stage ends, at its mean rate so far; None where that is unknown."""
        if not self.first < self.done < self.total:
            return None
        return (now - self.stage_began) / (self.done - self.first) * (self.total - self.done)


class PlainProgress(Reporter):
    """One line when a stage begins for the first time, then at most one every ten seconds."""

    def __init__(self, write: Callable[[str], None], clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self.write = write
        self.begun: set[str] = set()
        self.written = self.began

    def show(self, now: float) -> None:
        if self.stage in self.begun and now - self.written < EVERY:
            return
        self.begun.add(self.stage)
        self.written = now
        self.write(self.line(now))

    def line(self, now: float) -> str:
        """`0:41 calibrate 12/32, about 1:02 left`: the time since the verb began, then the stage."""
        detail = f": {self.detail}" if self.detail else ""
        count = f" {self.done}/{self.total}" if self.total else ""
        left = self.left(now)
        rest = "" if left is None else f", about {minutes(left)} left"
        return f"{minutes(now - self.began)} {self.stage}{count}{detail}{rest}"


class Bar(Reporter):
    """One line that is redrawn after a carriage return, which notebooks support too.

    The line of a stage that ends for the first time stays.
    """

    def __init__(self, stream: TextIO, columns: Callable[[], int], clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self.stream, self.columns = stream, columns
        self.drawn = -REDRAW
        self.width = 0  # of what is on the line now
        self.ended: set[str] = set()

    def show(self, now: float) -> None:
        ends = 0 < self.total <= self.done and self.stage not in self.ended
        if now - self.drawn < REDRAW and not ends and self.done:
            return
        self.drawn = now
        line = self.line(now)[: self.columns() - 1]
        self.stream.write(f"\r{line.ljust(self.width)}" + ("\n" if ends else ""))
        self.stream.flush()
        self.width = 0 if ends else len(line)
        if ends:
            self.ended.add(self.stage)

    def line(self, now: float) -> str:
        """`calibrate  ━━━━━━━━━────────  12/32  0:41, 1:02 left  detail`."""
        spent, left = minutes(now - self.stage_began), self.left(now)
        parts = [self.stage.ljust(14)]
        if self.total:
            full = min(CELLS, CELLS * self.done // self.total)
            parts += ["━" * full + "─" * (CELLS - full), f"{self.done}/{self.total}"]
        parts.append(spent if left is None else f"{spent}, {minutes(left)} left")
        return "  ".join([*parts, *([self.detail] if self.detail else [])])

    def close(self) -> None:
        if self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()
            self.width = 0


class Both(Reporter):
    """Forwards every call to several receivers."""

    def __init__(self, *receivers: Progress) -> None:
        super().__init__()
        self.receivers = receivers

    def __call__(self, what: str, done: int, total: int) -> None:
        for receiver in self.receivers:
            receiver(what, done, total)


def as_progress(progress: Progress | bool | None) -> Progress | None:
    """The receiver for a public function's argument `progress`: True is a bar or plain lines on stderr, None is silent.

    The lines also go to the logger "kdna_convert" at level INFO, where that is enabled. Of several processes only the
    first reports.
    """
    if isinstance(progress, Reporter):  # a public function that called this one made it
        return progress
    if not is_first():
        return None
    if progress is True:
        progress = on_stderr()
    logs = LOGGER.isEnabledFor(logging.INFO)
    if not callable(progress):
        return PlainProgress(LOGGER.info) if logs else None
    return Both(progress, PlainProgress(LOGGER.info)) if logs else progress


def on_stderr() -> Reporter:
    """A bar where stderr is a terminal or a notebook, else plain lines."""
    stream = sys.stderr
    if in_notebook():
        return Bar(stream, lambda: NOTEBOOK_COLUMNS)
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Bar(stream, lambda: shutil.get_terminal_size().columns)

    def write(line: str) -> None:
        stream.write(f"kdna: {line}\n")
        stream.flush()

    return PlainProgress(write)


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def minutes(seconds: float) -> str:
    """1:02, or 1:02:03 from an hour on."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
