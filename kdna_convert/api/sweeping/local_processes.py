"""Tasks as processes of this machine, within a number of cores and bytes of memory."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from ...core.interrupts import signals_delayed
from .execution import POLL, STOP, Execution, Outcome, SweepTask

SHARE = 0.9  # of the machine's memory that jobs may use


class LocalProcesses:
    """Processes of this machine.

    Args:
        cores: The threads of all tasks together.
        memory: The bytes of all tasks together, by their expected peaks. A task that is expected to need more runs
            alone.
        held: Files that every process keeps open.
    """

    def __init__(self, cores: int, memory: int, held: Sequence[int] = ()) -> None:
        self.cores, self.memory, self.held = cores, memory, held
        self.running: dict[str, tuple[SweepTask, Execution]] = {}

    def has_room(self, task: SweepTask) -> bool:
        """Whether the task fits beside those that run."""
        others = [each for each, _ in self.running.values()]
        if not others:
            return True
        cores = task.cores + sum(each.cores for each in others)
        return cores <= self.cores and task.memory + sum(each.memory for each in others) <= self.memory

    def start(self, task: SweepTask) -> None:
        """Begin the task's command. A signal waits until it is recorded: `stop` would not end an unrecorded one."""
        with signals_delayed():
            self.running[task.name] = (task, Execution(task.command(), task.cores, held=self.held))

    def ended(self) -> Sequence[tuple[SweepTask, Outcome]]:
        """Those that have ended, after a moment."""
        found = []
        for name, (task, execution) in [*self.running.items()]:
            outcome = execution.ended()
            if outcome is not None:
                del self.running[name]
                found.append((task, outcome))
        if not found:
            time.sleep(POLL)
        return found

    def stop(self) -> None:
        """Ask all to end, and kill those that have not after a while."""
        executions = [execution for _, execution in self.running.values()]
        for execution in executions:
            execution.terminate()
        until = time.monotonic() + STOP
        for execution in executions:
            execution.end(until - time.monotonic())
        self.running.clear()


def machine_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> int:
    """The bytes of memory that jobs may use: most of what the machine has. 1 TiB where that is unknown."""
    try:
        return int(SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 2**40
