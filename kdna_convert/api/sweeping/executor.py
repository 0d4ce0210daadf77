"""What runs the tasks of a sweep: this machine, a Ray cluster or Slurm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .execution import Outcome, SweepTask


class Executor(Protocol):
    """Runs tasks side by side. The scheduler starts a task only when the one that it comes after has ended."""

    def has_room(self, task: SweepTask) -> bool:
        """Whether to start a task now. An executor with a queue of its own always has room."""

    def start(self, task: SweepTask) -> None:
        """Begin a task. Its output folder and what it adds to the cache are in place when it has ended."""

    def ended(self) -> Sequence[tuple[SweepTask, Outcome]]:
        """The tasks that have ended since the last call. Waits a moment for the first one."""

    def stop(self) -> None:
        """End all that runs."""
