"""Tasks side by side: the results are those of one after the other, whatever becomes of the processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdna_convert.core import side_by_side as module
from kdna_convert.core.errors import NumericsError
from kdna_convert.core.side_by_side import side_by_side, workers

HERE = os.getpid()
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@pytest.fixture(autouse=True)
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "workers", lambda: 2)


def squared(number: int) -> tuple[int, Tensor]:
    tensor = torch.full((3,), float(number), requires_grad=True)
    (slope,) = torch.autograd.grad(tensor.square().sum(), tensor)
    return os.getpid(), slope


@needs_fork
def test_results_come_in_order_from_processes_of_one_thread() -> None:
    seen: list[int] = []
    results = side_by_side([partial(squared, number) for number in range(7)], seen.append)
    assert [float(slope[0]) for _, slope in results] == [2.0 * number for number in range(7)]
    assert seen == list(range(7))
    assert HERE not in {process for process, _ in results}
    assert side_by_side([torch.get_num_threads] * 2) == [1, 1]
    assert not multiprocessing.active_children()


def fail(number: int) -> int:
    if number == 2:
        raise NumericsError("KD703", "the third")
    return number


@pytest.mark.parametrize("count", [1, 2])
def test_the_error_of_a_task_is_raised(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "workers", lambda: count)
    with pytest.raises(NumericsError, match="KD703: the third"):
        side_by_side([partial(fail, number) for number in range(5)])
    assert not multiprocessing.active_children()


def die_elsewhere(number: int) -> int:
    if number == 1 and os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@needs_fork
def test_the_tasks_of_a_killed_worker_are_computed_here() -> None:
    assert side_by_side([partial(die_elsewhere, number) for number in range(6)]) == list(range(6))


@pytest.mark.parametrize("few", [[], [lambda: os.getpid()]])
def test_fewer_than_two_tasks_start_no_process(few: list[Callable[[], int]]) -> None:
    assert side_by_side(few) == [HERE] * len(few)


def test_one_thread_means_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert workers() == 1
    finally:
        torch.set_num_threads(before)


@needs_fork
def test_workers_end_with_a_parent_that_is_killed() -> None:
    code = (
        "import time, torch; torch.set_num_threads(2)\n"
        "from kdna_convert.core import side_by_side as module\n"
        "module.workers = lambda: 2\n"
        "def task():\n    import os; os.write(1, f'{os.getpid()}\\n'.encode()); time.sleep(60)\n"
        "module.side_by_side([task, task])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
    deadline = time.monotonic() + 10
    while any(map(_runs, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, children))


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
