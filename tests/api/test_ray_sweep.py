"""A sweep on a real Ray cluster of two nodes on this machine: what is killed is done again, and nothing else is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.command import NET

import kdna_convert
from kdna_convert.api.sweeping.execution import Outcome, SweepTask
from kdna_convert.api.sweeping.ray_cluster import RayCluster
from kdna_convert.api.sweeping.scheduler import run_tasks
from kdna_convert.core.errors import FolderError

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
RUN = ("run", "quick.yaml", NET)
LIMIT = 180  # seconds


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one core each. Workers find the modules of the tests' process."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else whatever else runs here starves them
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    started.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    try:
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def dense(tmp_path: Path, images: Path) -> Callable[[str], SweepTask]:
    """A task that writes a folder of the unchanged tiny net, which takes seconds."""
    (tmp_path / "dense.yaml").write_text("{scheme: dense, calibration: {images: 30, heldout: 20}}")

    def make(name: str) -> SweepTask:
        words = ("run", str(tmp_path / "dense.yaml"), NET, "--data", str(images))
        return SweepTask(name, "net", words, tmp_path / "cache", tmp_path / "jobs" / name)

    return make


class Disturbed(RayCluster):
    """A cluster to which something happens once, as soon as a command runs."""

    def __init__(self, address: str, disturb: Callable[[], bool]) -> None:
        super().__init__(address)
        self.disturb, self.disturbed = disturb, False
        self.started: list[str] = []

    def start(self, task: SweepTask) -> None:
        self.started.append(task.name)
        super().start(task)

    def ended(self) -> Sequence[tuple[SweepTask, Outcome]]:
        self.disturbed = self.disturbed or self.disturb()
        return super().ended()


def commands() -> list[Any]:
    """The processes of this machine that run a task's command, under a worker of Ray."""
    found = []
    for process in psutil.process_iter():
        try:
            parent = process.parent()
            own = parent is not None and parent.name().startswith("ray::")
            if own and process.cmdline()[1:4] == ["-m", "kdna_convert", "run"]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def run_all(tasks: Sequence[SweepTask], executor: RayCluster) -> dict[str, Outcome]:
    until = time.monotonic() + LIMIT
    ended = {}
    try:
        for task, outcome in run_tasks(tasks, executor, 1):
            ended[task.name] = outcome
            assert time.monotonic() < until
    finally:
        executor.stop()
    return ended


def test_a_killed_worker_and_a_lost_node_cost_their_running_job_only(
    cluster: Any, dense: Callable[[str], SweepTask]
) -> None:
    orphans: list[Any] = []

    def kill_worker() -> bool:
        running = commands()
        if running:
            orphans.append(running[0])
            os.kill(running[0].parent().pid, signal.SIGKILL)
        return bool(running)

    first = Disturbed(cluster.address, kill_worker)
    tasks = [dense(name) for name in ("one", "two", "three")]
    ended = run_all(tasks, first)
    assert first.disturbed
    assert sorted(first.started) == sorted([*ended, max(ended, key=first.started.count)])  # one of them twice
    assert not any(process.is_running() for process in orphans)
    assert {name: outcome.exit_code for name, outcome in ended.items()} == {"one": 0, "two": 0, "three": 0}
    assert all(kdna_convert.verify(task.output) for task in tasks)

    def lose_node() -> bool:
        if len(commands()) < 2:
            return False
        cluster.remove_node(cluster.worker_nodes.copy().pop())
        return True

    second = Disturbed(cluster.address, lose_node)
    ended = run_all([dense(name) for name in ("four", "five")], second)
    assert second.disturbed
    assert [outcome.exit_code for outcome in ended.values()] == [0, 0]
    assert len(second.started) == 3


def test_a_job_that_no_node_is_large_enough_for_is_refused(cluster: Any, dense: Callable[[str], SweepTask]) -> None:
    executor = RayCluster(cluster.address)
    try:
        with pytest.raises(FolderError, match=r"KD615: a job needs 1 CPUs and 2 GPUs, which no node"):
            executor.has_room(SweepTask("large", "net", (), Path("cache"), gpus=2))
        with pytest.raises(FolderError, match=r"KD615: a job needs 9 CPUs, which no node"):
            executor.has_room(SweepTask("large", "net", (), Path("cache"), cores=9))
    finally:
        executor.stop()
