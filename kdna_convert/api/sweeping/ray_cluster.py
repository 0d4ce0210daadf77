"""Tasks on a Ray cluster. Nodes need kdna, the models and the images; no folder need be shared.

What the jobs of a net share lies in the object store of the node that made it, where Ray prefers to run them; each
job's folder comes back through the object store. The cache is written here, too, so that a sweep that starts again, or
loses that node, does not calibrate again.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ...core.atomic import new_folder, write_bytes
from ...core.errors import FolderError, cause
from .execution import Execution, Outcome, SweepTask
from .ray_address import require_reachable, silence, used_address

WAIT = 0.2  # seconds for a task to end
PROBE = 2.0  # seconds between two looks at the head
PATIENCE = 20.0  # seconds that the head may be silent: Ray ends this process without a word after 60
AGAIN = "start it and run the same command again: finished jobs are kept"
# The files of a folder by name, as bytes that the object store shares without a copy.
Files = dict[str, np.ndarray[Any, np.dtype[np.uint8]]]


class RayCluster:
    """A Ray cluster at `address`: HOST:PORT, ray://HOST:PORT or auto; `local` starts one on this machine.

    None is what Ray makes of it: RAY_ADDRESS, else the latest cluster of this machine, else a new one.

    Raises:
        FolderError: KD615 without Ray, or a cluster that cannot be reached.
    """

    def __init__(self, address: str | None) -> None:
        self.ray = _library()
        used, source = used_address(address)
        require_reachable(used, source)
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            way_out = "it needs this Ray and this Python, and RAY_AUTH_MODE=token here if it asks for a token"
            said = f"Ray cannot use the cluster at {used}{source} ({cause(error)}); {way_out}"
            raise FolderError("KD615", said if used else f"Ray does not start here: {cause(error)}") from None
        self.head = used if used and "://" in used else str(self.ray.get_runtime_context().gcs_address)
        self.seen, self.lost = time.monotonic(), False
        self.remote = self.ray.remote(max_retries=0)(_run)
        self.running: dict[Any, _Running] = {}
        self.shared: dict[Path, Any] = {}

    def has_room(self, task: SweepTask) -> bool:
        """Always: Ray keeps a queue. Raises FolderError KD615 for a task that no node is large enough for."""
        self._require_head()
        with self._connected():
            able = self._nodes_for(task)
        if not able:
            if not any(node["Alive"] for node in self.ray.nodes()):
                raise FolderError("KD615", f"the Ray cluster at {self.head} has no node left; {AGAIN}")
            needs = f"{task.cores} CPUs" + (f" and {task.gpus:g} GPUs" if task.gpus else "")
            raise FolderError("KD615", f"a job needs {needs}, which no node of the cluster has; ask for fewer")
        return True

    def start(self, task: SweepTask) -> None:
        """Queue the task, with what its net has in the object store."""
        with self._connected():
            if task.cache not in self.shared:
                self.shared[task.cache] = self.ray.put(_files(task.cache))
            nodes = self._nodes_for(task)
            memory = min(float(task.memory), max((node.get("memory", 0.0) for node in nodes), default=0.0))
            needs = {"num_cpus": task.cores, "num_gpus": task.gpus, "memory": memory, "num_returns": 2}
            shared = self.shared[task.cache]
            outcome, made = self.remote.options(**needs).remote(task, str(Path.cwd()), shared)
            self.running[outcome] = _Running(task, made, shared)

    def ended(self) -> Sequence[tuple[SweepTask, Outcome]]:
        """Those that have ended. What they made is in place. Raises FolderError KD615 if the head is lost."""
        if time.monotonic() > self.seen + PROBE:
            self._require_head()
        with self._connected():
            ready, _ = self.ray.wait([*self.running], num_returns=1, timeout=WAIT)
        found = []
        for reference in ready:
            own = self.running.pop(reference)
            try:
                with self._connected():
                    found.append((own.task, self._outcome(own, reference)))
            except self.ray.exceptions.ObjectLostError:  # it did not run: what its net shares went with a node
                if self.shared.get(own.task.cache) is own.shared:
                    del self.shared[own.task.cache]
                self.start(own.task)
        return found

    def stop(self) -> None:
        """End all tasks, and leave the cluster. Without its head, both would wait until Ray ends this process."""
        if self.lost:
            self.running.clear()
            return
        for reference in self.running:
            with suppress(self.ray.exceptions.RayError, ConnectionError):
                self.ray.cancel(reference, force=True)
        self.running.clear()
        self.ray.shutdown()

    def _outcome(self, own: _Running, reference: Any) -> Outcome:
        errors, task = self.ray.exceptions, own.task
        try:
            outcome: Outcome = self.ray.get(reference)
            if outcome.exit_code == 0:
                made = self.ray.get(own.made)
                if task.output is None:
                    _write(made, task.cache)
                    self.shared[task.cache] = own.made
                else:
                    _unpack(made, task.output.parent)
        except errors.RayTaskError as error:
            return self._named(Outcome(1, err=cause(error), host=str(error.ip)))
        except errors.ObjectLostError:
            raise
        except errors.RayError as error:
            return Outcome(1, lost=f"the worker or its node was lost ({type(error).__name__})")
        except ConnectionError:
            raise
        except OSError as error:
            return Outcome(
                2, err=f"kdna: error KD604: {task.output or task.cache} could not be written: {error.strerror or error}"
            )
        return self._named(outcome) if outcome.exit_code and outcome.err else outcome

    def _named(self, outcome: Outcome) -> Outcome:
        """An outcome whose errors name the node, if there are several."""
        if sum(node["Alive"] for node in self.ray.nodes()) < 2:
            return outcome
        lines = outcome.err.rstrip().splitlines() or [""]
        ends = {index for index, line in enumerate(lines) if line.startswith("kdna: error ")} | {len(lines) - 1}
        named = [f"{line} (on {outcome.host})" if index in ends else line for index, line in enumerate(lines)]
        return replace(outcome, err="\n".join(named))

    def _require_head(self) -> None:
        """Wait until the head answers. Raises FolderError KD615 if it does not."""
        until = time.monotonic() + PATIENCE
        while (silent := silence(self.head)) is not None:
            if time.monotonic() > until:
                self.lost = True
                raise FolderError("KD615", f"the head of the Ray cluster at {self.head} was lost ({silent}); {AGAIN}")
            time.sleep(WAIT)
        self.seen = time.monotonic()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Raises FolderError KD615 for what Ray raises inside, but for an object that was lost with its node."""
        try:
            yield
        except self.ray.exceptions.ObjectLostError:
            raise
        except ConnectionError as error:
            self.lost = True
            raise FolderError("KD615", f"the Ray cluster at {self.head} was lost ({cause(error)}); {AGAIN}") from None
        except self.ray.exceptions.RayError as error:
            raise FolderError("KD615", f"the Ray cluster at {self.head} has failed ({cause(error)}); {AGAIN}") from None

    def _nodes_for(self, task: SweepTask) -> list[dict[str, float]]:
        """The resources of the nodes with the cores and GPUs of a task; those with its memory, if there are any."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        able = [node for node in nodes if node.get("CPU", 0) >= task.cores and node.get("GPU", 0) >= task.gpus]
        return [node for node in able if node.get("memory", 0.0) >= task.memory] or able


@dataclass(frozen=True)
class _Running:
    """A task in the cluster, and the references of what it will have made and of what it was given."""

    task: SweepTask
    made: Any
    shared: Any


def _library() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as later versions do; else a warning
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise FolderError("KD615", "--on ray requires Ray: pip install 'kdna-convert[ray]'") from None
    return ray


def _run(task: SweepTask, cwd: str, files: Mapping[str, Any]) -> tuple[Outcome, Any]:
    """On a node: run a task in folders of its own. Returns its outcome, and what it made: files, or packed folders."""
    if not Path(cwd).is_dir():
        return Outcome(2, err=f"kdna: error KD615: this node has no folder {cwd}, where the sweep was started"), None
    with TemporaryDirectory(prefix="kdna-sweep-") as place:
        cache, jobs = Path(place) / "cache", Path(place) / "jobs"
        _write(files, cache)
        jobs.mkdir()
        command = task.command(cache, None if task.output is None else jobs / task.output.name)
        outcome = Execution(command, task.cores, Path(cwd), with_parent=True).wait()
        if outcome.exit_code:
            return outcome, None
        return outcome, _files(cache) if task.output is None else _packed(jobs)


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
    """A job's folder, and the export beside it if its recipe has one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return packed.getvalue()


def _unpack(packed: bytes, folder: Path) -> None:
    """Put what was packed into a folder, each file and each folder whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".arrived-") as place:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(place, filter="data")
        for path in sorted(Path(place).iterdir()):
            if path.is_dir():
                with new_folder(folder / path.name) as target:
                    shutil.copytree(path, target, dirs_exist_ok=True)
            else:
                path.replace(folder / path.name)
