"""Independent computations side by side, in one process per core, each with one thread.

    results = side_by_side([partial(fit, family) for family in families])

On small matrices the threads of one operation gain little, and those of Python run one at a time. The processes are
forked, as the workers of torch's DataLoader are: they share this process's memory until they change it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux's prctl
_tasks: Sequence[Callable[[], Any]] = ()  # of a worker


def workers() -> int:
    """How many processes can run side by side: one per thread that torch may use, where forking is safe.

    Forking is safe on Linux, in a process that may have children, on a machine without an accelerator: with one,
    autograd starts threads, which a forked process lacks.
    """
    if sys.platform != "linux" or torch.accelerator.is_available() or multiprocessing.current_process().daemon:
        return 1
    return torch.get_num_threads()


def side_by_side(tasks: Sequence[Callable[[], T]], awaited: Callable[[int], None] | None = None) -> list[T]:
    """The results of the tasks, in their order. `awaited` is called with the number of each before it is waited for.

    A task must not rely on changes that another makes. What it returns or raises must be picklable. Where a worker is
    killed, as for its memory, the remaining tasks are computed in this process.
    """
    results: list[T] = []
    if (count := min(workers(), len(tasks))) > 1:
        with suppress(BrokenProcessPool):
            _in_processes(tasks, count, results, awaited)
    for number in range(len(results), len(tasks)):
        if awaited is not None:
            awaited(number)
        results.append(tasks[number]())
    return results


def _in_processes(
    tasks: Sequence[Callable[[], T]], count: int, results: list[T], awaited: Callable[[int], None] | None
) -> None:
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(tasks,))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: that this process has threads
            arriving = pool.map(_run, range(len(tasks)))
        for number in range(len(tasks)):
            if awaited is not None:
                awaited(number)
            results.append(pickle.loads(next(arriving)))
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(tasks: Sequence[Callable[[], Any]]) -> None:
    """Prepare a worker: one thread, no reaction to Ctrl-C of its own, an end with the parent."""
    global _tasks
    _tasks = tasks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    torch.set_num_threads(1)


def _run(number: int) -> bytes:
    """A task's result, pickled as bytes: tensors would take shared memory, which containers have little of."""
    return pickle.dumps(_tasks[number]())
