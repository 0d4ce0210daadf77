"""Tasks as jobs of Slurm, by submitit. The folder of the sweep is on storage that all nodes see."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import FolderError, cause
from .execution import Execution, Outcome, SweepTask

LOGS = "slurm"
POLL = 1.0  # seconds
MINUTES = 24 * 60  # of a job, if the user sets no `timeout_min`


class SlurmQueue:
    """The queue of this cluster. `settings` are submitit's: slurm_partition, timeout_min and so on.

    Raises:
        FolderError: KD615 without submitit or Slurm, or for a setting that submitit does not have.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], cluster: str = "slurm") -> None:
        try:
            import submitit
        except ImportError:
            raise FolderError("KD615", "--on slurm requires submitit: pip install 'kdna-convert[slurm]'") from None
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise FolderError("KD615", "--on slurm: this machine has no sbatch; start the sweep on a node with Slurm")
        self.submitit, self.settings = submitit, dict(settings)
        self.executor = submitit.AutoExecutor(folder=folder / LOGS, cluster=cluster)
        self.running: dict[str, tuple[SweepTask, Any]] = {}
        try:
            self.executor.update_parameters(**{"timeout_min": MINUTES, **settings})
        except (NameError, TypeError, ValueError) as error:
            raise FolderError("KD615", f"--slurm: {cause(error)}") from None

    def has_room(self, task: SweepTask) -> bool:
        """Always: Slurm keeps the queue. Raises FolderError KD615 for a part of a GPU."""
        if task.gpus != int(task.gpus):
            raise FolderError("KD615", f"--gpus {task.gpus:g}: Slurm gives whole GPUs; ask for 1")
        return True

    def start(self, task: SweepTask) -> None:
        """Submit the task with its cores, memory and GPUs."""
        needs = {"cpus_per_task": task.cores, "mem_gb": max(1, -(-task.memory // 2**30)), "name": "kdna-sweep"}
        needs |= {"gpus_per_node": int(task.gpus)} if task.gpus else {}
        self.executor.update_parameters(**{**needs, **self.settings})
        self.running[task.name] = (task, self.executor.submit(run_task, task, Path.cwd()))

    def ended(self) -> Sequence[tuple[SweepTask, Outcome]]:
        """Those that have ended, after a moment."""
        found = []
        for name, (task, job) in [*self.running.items()]:
            if job.done():
                del self.running[name]
                found.append((task, self._outcome(job)))
        if not found:
            time.sleep(POLL)
        return found

    def stop(self) -> None:
        """Cancel all jobs."""
        for _, job in self.running.values():
            job.cancel()
        self.running.clear()

    def _outcome(self, job: Any) -> Outcome:
        try:
            outcome: Outcome = job.result()
        except self.submitit.core.utils.FailedJobError as error:
            return Outcome(1, err=cause(error))
        except self.submitit.core.utils.UncompletedJobError as error:
            return Outcome(1, lost=f"the job {job.job_id} ended without a result ({cause(error)})")
        return outcome


def run_task(task: SweepTask, cwd: Path) -> Outcome:
    """On a node: run a task."""
    return Execution(task.command(), task.cores, cwd).wait()
