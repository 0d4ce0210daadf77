"""A sweep on a real Ray cluster of two nodes on this machine: what is killed is done again, and nothing else is."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.command import NET

import kdna_convert
from kdna_convert.api.sweeping import ray_cluster
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


class Head:
    """A stand-in for Ray with nodes that never end a task."""

    exceptions = ray.exceptions

    def __init__(self, outcome: Outcome, nodes: int = 1) -> None:
        self.outcome, self.count = outcome, nodes
        self.shut = False

    def init(self, **given: Any) -> None:
        self.given = given

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        return lambda function: function

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address=self.given["address"])

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1}}] * self.count

    def get(self, reference: Any) -> Outcome:
        return self.outcome

    def put(self, data: Any) -> None:
        raise ray.exceptions.ObjectStoreFullError("no space")

    def wait(self, references: Sequence[Any], **options: Any) -> None:
        raise ConnectionError("Client is shutting down.")

    def shutdown(self) -> None:
        self.shut = True


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What answers at a port of this machine, until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def placed(monkeypatch: pytest.MonkeyPatch, listener: socket.socket, head: Head) -> RayCluster:
    monkeypatch.setattr(ray_cluster, "_library", lambda: head)
    return RayCluster(f"127.0.0.1:{listener.getsockname()[1]}")


def test_a_dead_cluster_that_only_the_environment_names_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    for address in (None, "auto"):
        with pytest.raises(FolderError) as refused:
            RayCluster(address)
        assert str(refused.value).startswith(
            "KD615: no Ray cluster answers at 127.0.0.1:9 (RAY_ADDRESS): connection refused; start the cluster"
        )
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9\n")
    for address in (None, "auto"):
        with pytest.raises(FolderError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 \(.*ray_current_cluster, the"):
            RayCluster(address)
    with pytest.raises(FolderError, match=r"no Ray cluster answers at 127\.0\.0\.1:x: this is not HOST:PORT; start"):
        RayCluster("127.0.0.1:x")
    assert time.monotonic() < began + 5


def test_a_failed_job_names_its_node_where_there_are_several(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    failed = Outcome(2, err="kdna: error KD302: there is no file net.py\nsee kdna explain KD302\n", host="node7")
    own = ray_cluster._Running(SweepTask("one", "net", (), Path("cache")), None, None)
    told = placed(monkeypatch, listener, Head(failed, nodes=2))._outcome(own, None).err
    assert told == "kdna: error KD302: there is no file net.py (on node7)\nsee kdna explain KD302 (on node7)"
    assert placed(monkeypatch, listener, Head(failed))._outcome(own, None) == failed


def test_a_lost_head_is_told_before_ray_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    head = Head(Outcome(0))
    monkeypatch.setattr(ray_cluster, "PATIENCE", 0.1)
    executor = placed(monkeypatch, listener, head)
    task = SweepTask("one", "net", (), Path("cache"))
    assert executor.has_room(task)
    listener.close()
    executor.seen -= ray_cluster.PROBE
    for ask in (executor.ended, lambda: executor.has_room(task)):
        with pytest.raises(
            FolderError, match=r"KD615: the head of the Ray cluster at 127\..*run the same command again"
        ):
            ask()
    executor.stop()  # Ray's own would wait for the head
    assert not head.shut


def test_what_ray_raises_in_mid_sweep_is_one_line_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    executor = placed(monkeypatch, listener, Head(Outcome(0)))
    with pytest.raises(
        FolderError, match=r"KD615: the Ray cluster .* has failed \(ObjectStoreFullError: .*run the same"
    ):
        executor.start(SweepTask("one", "net", (), Path("cache")))
    with pytest.raises(FolderError, match=r"KD615: the Ray cluster .* was lost \(ConnectionError: .*run the same"):
        executor.ended()
    bare = placed(monkeypatch, listener, Head(Outcome(0), nodes=0))
    with pytest.raises(FolderError, match=r"KD615: the Ray cluster at .* has no node left; start it and run the same"):
        bare.has_room(SweepTask("one", "net", (), Path("cache")))
