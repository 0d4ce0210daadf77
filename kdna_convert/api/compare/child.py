"""Start a tool in another process. If the tool crashes, only its own row fails."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import torch

from .tool_run import Made, ToolRun
from .worker import MADE, PROBLEM, TOOL_RUN

PACKAGE_ROOT = Path(__file__).parents[3]
SHOWN = 200  # characters of an error message that are shown; some tools quote all their input


class PeerError(Exception):
    """A tool made no net. The message is one line, the `problem` of its row."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= SHOWN else line[: SHOWN - 1] + "…")


def run(tool_run: ToolRun, folder: Path, seconds: float) -> Made:
    """Run the tool_run in `folder` (worker.py), within this many seconds. Raises PeerError if it fails."""
    for stale in (MADE, PROBLEM):
        (folder / stale).unlink(missing_ok=True)
    (folder / TOOL_RUN).write_bytes(pickle.dumps(tool_run))
    code, last = _call(folder, seconds)
    if (folder / PROBLEM).exists():
        raise PeerError((folder / PROBLEM).read_text())
    if code or not (folder / MADE).exists():
        raise PeerError(f"its process ended with code {code}" + (f": {last}" if last else ""))
    try:
        made: Made = torch.load(folder / MADE, weights_only=False)
    except Exception as error:  # the classes of the net are the tool's, so any exception is possible
        raise PeerError(f"its net cannot be read back: {type(error).__name__}: {error}") from error
    return made


def _call(folder: Path, seconds: float) -> tuple[int, str]:
    """The exit code of the process, and the last line that it wrote to stderr."""
    paths = [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", str(__package__), str(folder)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"stopped after {seconds:.0f} s; raise --time-limit") from None
    lines = done.stderr.strip().splitlines()
    return done.returncode, lines[-1] if lines else ""
