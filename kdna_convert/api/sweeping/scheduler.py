"""Run the tasks of a sweep in order, as many at once as there is room for, and try killed ones again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from .execution import Outcome, SweepTask
from .executor import Executor


def run_tasks(
    tasks: Sequence[SweepTask],
    executor: Executor,
    retries: int,
    started: Callable[[SweepTask], None] = lambda task: None,
) -> Iterator[tuple[SweepTask, Outcome]]:
    """Yield each task with its outcome as it ends.

    A task starts when the one that it comes after has ended, well or not: without what that would have left in the
    cache, it makes its own.

    Args:
        tasks: In the order in which they start where there is room.
        executor: What runs them.
        retries: How often a task that was killed, by a signal or with its worker or node, is started again.
        started: Called with each task as it starts.
    """
    waiting, unfinished = [*tasks], {task.name for task in tasks}
    tries: Counter[str] = Counter()
    running: set[str] = set()
    while unfinished:
        for task in _ready(waiting, unfinished):
            if not executor.has_room(task):
                break  # in order: a large task is not overtaken for ever
            waiting.remove(task)
            running.add(task.name)
            started(task)
            executor.start(task)
        for task, outcome in executor.ended():
            running.discard(task.name)
            if outcome.killed and tries[task.name] < retries:
                tries[task.name] += 1
                waiting.insert(0, task)
                continue
            unfinished.discard(task.name)
            yield task, outcome


def _ready(waiting: Sequence[SweepTask], unfinished: set[str]) -> list[SweepTask]:
    """The tasks that need not wait for another."""
    return [task for task in waiting if task.after not in unfinished]
