"""Tasks on a Ray cluster. Nodes need kdna, the models and the images; no folder need be shared.

What the jobs of a net share lies in the object store of the node that made it, where Ray prefers to run them; each
job's folder comes back through the object store. The cache is written here, too, so that a sweep that starts again, or
loses that node, does not calibrate again.
"""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ...core.atomic import new_folder, write_bytes
from ...core.errors import FolderError, cause
from .execution import Execution, Outcome, SweepTask

WAIT = 0.2  # seconds for a task to end
CONNECT = 5.0  # seconds for the cluster to answer
DEFAULT_PORT = 6379
# The files of a folder by name, as bytes that the object store shares without a copy.
Files = dict[str, np.ndarray[Any, np.dtype[np.uint8]]]


class RayCluster:
    """A Ray cluster at `address`: HOST:PORT, ray://HOST:PORT or auto; None starts one on this machine.

    Raises:
        FolderError: KD615 without Ray, or a cluster that cannot be reached.
    """

    def __init__(self, address: str | None) -> None:
        self.ray = _library()
        _require_reachable(address)
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            raise FolderError("KD615", f"no Ray cluster at {address}: {cause(error)}") from None
        self.remote = self.ray.remote(max_retries=0)(_run)
        self.running: dict[Any, tuple[SweepTask, Any]] = {}
        self.shared: dict[Path, Any] = {}

    def has_room(self, task: SweepTask) -> bool:
        """Always: Ray keeps a queue. Raises FolderError KD615 for a task that no node is large enough for."""
        largest = self._largest()
        for name, needed in (("CPU", float(task.cores)), ("GPU", task.gpus)):
            if needed > largest.get(name, 0.0):
                has = f"the largest node has {largest.get(name, 0.0):g}"
                raise FolderError("KD615", f"a job needs {needed:g} {name}s, and {has}; ask for fewer")
        return True

    def start(self, task: SweepTask) -> None:
        """Queue the task, with what its net has in the object store."""
        if task.cache not in self.shared:
            self.shared[task.cache] = self.ray.put(_files(task.cache))
        memory = min(float(task.memory), self._largest().get("memory", 0.0))
        needs = {"num_cpus": task.cores, "num_gpus": task.gpus, "memory": memory, "num_returns": 2}
        outcome, made = self.remote.options(**needs).remote(task, str(Path.cwd()), self.shared[task.cache])
        self.running[outcome] = (task, made)

    def ended(self) -> Sequence[tuple[SweepTask, Outcome]]:
        """Those that have ended. What they made is in place."""
        ready, _ = self.ray.wait([*self.running], num_returns=1, timeout=WAIT)
        found = []
        for reference in ready:
            task, made = self.running.pop(reference)
            found.append((task, self._outcome(task, reference, made)))
        return found

    def stop(self) -> None:
        """End all tasks, and leave the cluster."""
        for reference in self.running:
            with suppress(self.ray.exceptions.RayError):
                self.ray.cancel(reference, force=True)
        self.running.clear()
        self.ray.shutdown()

    def _outcome(self, task: SweepTask, reference: Any, made: Any) -> Outcome:
        errors = self.ray.exceptions
        try:
            outcome: Outcome = self.ray.get(reference)
            if outcome.exit_code == 0:
                files = self.ray.get(made)
                if task.output is None:
                    _write(files, task.cache)
                    self.shared[task.cache] = made
                else:
                    _unpack(files, task.output)
        except errors.RayTaskError as error:
            return Outcome(1, err=cause(error))
        except errors.RayError as error:
            self.shared.pop(task.cache, None)  # it may be what was lost
            return Outcome(1, lost=f"the worker or its node was lost ({type(error).__name__})")
        return outcome

    def _largest(self) -> dict[str, float]:
        """The most of each resource that one node has."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return {name: max(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU", "memory")} if nodes else {}


def _library() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as later versions do; else a warning
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise FolderError("KD615", "--on ray requires Ray: pip install 'kdna-convert[ray]'") from None
    return ray


def _require_reachable(address: str | None) -> None:
    """Raise FolderError KD615 where nothing answers, which Ray itself finds after a minute."""
    if address in (None, "auto", "local"):
        return
    host, _, port = str(address).removeprefix("ray://").rpartition(":")
    try:
        number = int(port) if host else DEFAULT_PORT
        socket.create_connection((host or port, number), CONNECT).close()
    except (OSError, ValueError) as error:
        raise FolderError("KD615", f"no Ray cluster answers at {address}: {cause(error)}") from None


def _run(task: SweepTask, cwd: str, files: Mapping[str, Any]) -> tuple[Outcome, Any]:
    """On a node: run a task in folders of its own. Returns its outcome, and what it made: files, or a packed folder."""
    if not Path(cwd).is_dir():
        return Outcome(2, err=f"kdna: error KD615: this node has no folder {cwd}, where the sweep was started"), None
    with TemporaryDirectory(prefix="kdna-sweep-") as place:
        cache, output = Path(place) / "cache", Path(place) / "output"
        _write(files, cache)
        command = task.command(cache, None if task.output is None else output)
        outcome = replace(Execution(command, task.cores, Path(cwd)).wait(), out="")
        if outcome.exit_code:
            return outcome, None
        return outcome, _files(cache) if task.output is None else _packed(output)


def _files(folder: Path) -> Files:
    if not folder.is_dir():
        return {}
    return {path.name: np.fromfile(path, dtype=np.uint8) for path in sorted(folder.iterdir()) if path.is_file()}


def _write(files: Mapping[str, Any], folder: Path) -> None:
    """Write those that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if not (folder / name).exists():
            write_bytes(folder / name, bytes(data))


def _packed(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, arcname=".")
    return packed.getvalue()


def _unpack(packed: bytes, folder: Path) -> None:
    """Write a packed folder whole or not at all."""
    with new_folder(folder) as place, tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(place, filter="data")
