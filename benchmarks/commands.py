"""What the benchmarks of whole commands have in common: a command's cost, and rows in a file of JSON lines.

A row is written as soon as it is measured, so that a benchmark that is stopped resumes with the next row. Linux counts
the memory of the process that starts a command as the command's own, up to the start: such a benchmark does not import
torch.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from threading import Timer
from typing import Any

import kdna_convert

KDNA = (sys.executable, "-m", "kdna_convert")
Row = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a command took, with the processes that it started and waited for: wall and CPU seconds, peak RSS."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def row(self) -> Row:
        return {
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "peak_gb": round(self.peak_bytes / 1e9, 2),
        }


class CommandError(Exception):
    """A command failed or ran out of time: its last line on stderr."""


def kdna(*arguments: object, limit: float | None = None) -> tuple[Any, Cost]:
    """Run `kdna ARGUMENTS --json`: what it prints, and its cost. The command as a user types it goes to stderr.

    Args:
        arguments: those of the command.
        limit: seconds after which it is ended.

    Raises:
        CommandError: it failed.
    """
    words = [str(argument) for argument in arguments]
    print(f"$ {shlex.join(['kdna', *words])}", file=sys.stderr, flush=True)
    out, cost = run([*KDNA, *words, "--json", "--quiet"], limit)
    return json.loads(out), cost


def run(command: Sequence[str], limit: float | None = None) -> tuple[str, Cost]:
    """Run a command, for at most `limit` seconds: its stdout, and its cost. Raises CommandError."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        timer = Timer(limit or 0, os.kill, (process.pid, signal.SIGTERM))
        if limit is not None:
            timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode in (-signal.SIGTERM, -signal.SIGKILL):
            raise CommandError(f"ended after {time.perf_counter() - began:.0f} s: out of time or memory")
        if process.returncode:
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise CommandError(lines[-1] if lines else f"exit code {process.returncode}")
        scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there
        cost = Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale)
        return out.read().decode(), cost


def stages(report: Row) -> Row:
    """Seconds of each stage of a conversion, by its report."""
    code = {"code": report["code"]["seconds"]} if report.get("code") else {}
    return {name: round(seconds, 1) for name, seconds in (report["seconds"] | code).items()}


def machine() -> Row:
    """Where and by what a row was measured: the processor, its cores, the threads, versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "threads": int(os.environ.get("OMP_NUM_THREADS") or cores),
        "torch": metadata.version("torch"),
        "kdna": kdna_convert.__version__,
        "commit": _commit(),
    }


def rows(file: Path) -> list[Row]:
    """The rows that the file has; none where it does not exist."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append(file: Path, row: Row) -> Row:
    """Add a row to the file, and return it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    return row


def table(columns: Sequence[str], found: Sequence[Sequence[object]], text: int = 1) -> str:
    """A markdown table; the first `text` columns are text, the others numbers."""
    lines = [columns, ["---"] * text + ["---:"] * (len(columns) - text), *found]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
