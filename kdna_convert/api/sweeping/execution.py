"""Run one command of a sweep in a process of its own, and measure what it takes."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ...core.machine import machine_versions

KDNA = (sys.executable, "-m", "kdna_convert")
# Variables that the arithmetic libraries read for their number of threads.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
KEPT = 20_000  # characters of stderr
POLL = 0.05  # seconds
STOP = 60.0  # seconds that a job has to write its state
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


@dataclass(frozen=True)
class SweepTask:
    """One command of a sweep.

    Attributes:
        name: The job's name, or that of what several jobs of a net share.
        net: The net's name in the grid.
        words: The arguments of `kdna`, without those for the folders below.
        cache: The folder of moments and predicted errors.
        output: The folder that the command writes; None for a task that only fills the cache.
        after: The name of the task that must have ended before.
        cores: The threads that it uses.
        memory: The bytes that it is expected to hold.
        gpus: The GPUs that it uses.
    """

    name: str
    net: str
    words: tuple[str, ...]
    cache: Path
    output: Path | None = None
    after: str | None = None
    cores: int = 1
    memory: int = 0
    gpus: float = 0.0

    def command(self, cache: Path | None = None, output: Path | None = None) -> list[str]:
        """The arguments of `kdna`; a machine that does not see the folders has others in their place."""
        cache, output = cache or self.cache, output or self.output
        words = [*self.words, "--moments", str(cache), "--database", str(cache)]
        return words if output is None else [*words, "-o", str(output)]


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        exit_code: Below 0 for a signal.
        err: The end of what it printed on stderr.
        seconds, cpu_seconds, peak_bytes: Wall time, that of all threads, and the most memory; 0 where unknown.
        host, versions: The machine that ran it.
        lost: Why there is no exit code: a worker or a node that ended before the command did. None for a command that
            ended by itself.
    """

    exit_code: int
    err: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    host: str = field(default_factory=platform.node)
    versions: dict[str, str] = field(default_factory=machine_versions)
    lost: str | None = None

    @property
    def killed(self) -> bool:
        """Whether something outside ended it: it may succeed when it is tried again."""
        return self.lost is not None or self.exit_code < 0 or self.exit_code == 128 + signal.SIGKILL


class Execution:
    """A command that runs, with one thread a core. `ended()` is None until it ends.

    It has a session of its own: Ctrl-C in the terminal reaches the sweep alone, which then stops its commands once.

    Args:
        command: The arguments of `kdna`.
        cores: The threads that it may use.
        cwd: Where it runs.
        held: Files that the process keeps open: a lock is held until it ends.
        with_parent: End it when this process is killed, where the system can (Linux).
    """

    def __init__(
        self,
        command: Sequence[str],
        cores: int,
        cwd: Path | None = None,
        held: Sequence[int] = (),
        *,
        with_parent: bool = False,
    ) -> None:
        self.err = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it ends
        self.began = time.perf_counter()
        environment = os.environ | dict.fromkeys(THREADS, str(cores))
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": self.err}
        how |= {"cwd": cwd, "env": environment}
        if os.name == "posix":
            how |= {"pass_fds": tuple(held), "start_new_session": True}
            how |= {"preexec_fn": _ends_with_parent()} if with_parent and sys.platform == "linux" else {}
        self.process = subprocess.Popen([*KDNA, *command, "--quiet"], **how)

    def ended(self) -> Outcome | None:
        """How it ended; None while it runs."""
        usage = None
        if hasattr(os, "wait4"):
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if not pid:
                return None
            self.process.returncode = os.waitstatus_to_exitcode(status)
        elif self.process.poll() is None:
            return None
        seconds = time.perf_counter() - self.began
        cpu, peak = (usage.ru_utime + usage.ru_stime, _bytes(usage.ru_maxrss)) if usage else (0.0, 0)
        return Outcome(self.process.returncode, _text(self.err)[-KEPT:], seconds, cpu, peak)

    def wait(self) -> Outcome:
        """How it ended, when it has."""
        while (outcome := self.ended()) is None:
            time.sleep(POLL)
        return outcome

    def terminate(self) -> None:
        """Ask it to end: a fine-tune writes its state first."""
        if self.process.returncode is None:
            self.process.terminate()

    def end(self, seconds: float) -> None:
        """Wait until it has ended, and kill it after so many seconds."""
        if self.process.returncode is not None:
            return
        try:
            self.process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _ends_with_parent() -> Callable[[], object]:
    """What a child process of Linux calls to be killed when this process is."""
    prctl = ctypes.CDLL(None).prctl  # looked up here: the child of a process with threads should do little
    return lambda: prctl(_DIE_WITH_PARENT, int(signal.SIGKILL))


def _bytes(peak: int) -> int:
    """Linux counts in KiB, macOS in bytes."""
    return peak if sys.platform == "darwin" else 1024 * peak


def _text(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode(errors="replace")
