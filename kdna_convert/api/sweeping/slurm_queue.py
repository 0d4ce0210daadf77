"""Tasks as jobs of Slurm, by submitit. The folder of the sweep is on storage that all nodes see."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ...core.errors import FolderError, cause
from .execution import Execution, Outcome, SweepTask

LOGS = "slurm"
POLL = 1.0  # seconds
MINUTES = 24 * 60  # of a job, if the user sets no `timeout_min`
COMMANDS = ("sbatch", "srun")
# Settings of jobs of several processes: a task of a sweep is one.
ONE = ("nodes", "tasks_per_node", "slurm_nodes", "slurm_tasks_per_node", "slurm_ntasks_per_node")
SAID = 300  # characters of what Slurm or submitit said


class SlurmQueue:
    """The queue of this cluster. `settings` are submitit's: slurm_partition, timeout_min and so on.

    Raises:
        FolderError: KD615 without submitit or Slurm, or for a setting that submitit does not take.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], cluster: str = "slurm") -> None:
        try:
            import submitit
        except ImportError:
            raise FolderError("KD615", "--on slurm requires submitit: pip install 'kdna-convert[slurm]'") from None
        for program in COMMANDS if cluster == "slurm" else ():
            if shutil.which(program) is None:
                way_out = "start the sweep on a node with Slurm"
                raise FolderError("KD615", f"--on slurm: this machine has no {program}; {way_out}")
        self.submitit, self.settings = submitit, dict(settings)
        self.running: dict[str, tuple[SweepTask, Any]] = {}
        try:
            self.executor = submitit.AutoExecutor(folder=folder / LOGS, cluster=cluster)
        except (RuntimeError, OSError) as error:
            raise FolderError(
                "KD615", f"--on slurm: submitit finds no Slurm on this machine ({_said(error)})"
            ) from None
        self.executor.update_parameters(timeout_min=MINUTES)
        for name, value in self.settings.items():
            self._set(name, value)

    def has_room(self, task: SweepTask) -> bool:
        """Always: Slurm keeps the queue. Raises FolderError KD615 for a part of a GPU."""
        if task.gpus != int(task.gpus):
            raise FolderError("KD615", f"--gpus {task.gpus:g}: Slurm gives whole GPUs; ask for 1")
        return True

    def start(self, task: SweepTask) -> None:
        """Submit the task with its cores, memory and GPUs. Raises FolderError KD615 if Slurm refuses it."""
        needs = {"cpus_per_task": task.cores, "mem_gb": max(1, -(-task.memory // 2**30)), "name": "kdna-sweep"}
        needs |= {"gpus_per_node": int(task.gpus)} if task.gpus else {}
        self.executor.update_parameters(**{**needs, **self.settings})
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints there what the error says again
                job = self.executor.submit(run_task, task, Path.cwd())
        except (RuntimeError, OSError) as error:  # submitit's own are RuntimeErrors
            way_out = "correct the --slurm settings, or wait if a limit is reached, and run the same command again"
            refused = f"Slurm refused the job {task.name} ({_said(error)}); {way_out}: finished jobs are kept"
            raise FolderError("KD615", refused) from None
        self.running[task.name] = (task, job)

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
            with suppress(OSError):  # without scancel the others are asked, too
                job.cancel(check=False)
        self.running.clear()

    def _set(self, name: str, value: Any) -> None:
        """Set one of the user's settings, which submitit checks."""
        if name in ONE and value != 1:
            raise FolderError("KD615", f"--slurm {name}={value}: a job runs once, on one node; leave it out")
        try:
            self.executor.update_parameters(**{name: value})
        except NameError as error:
            near = get_close_matches(name.removeprefix("slurm_"), self._known(), 1)
            way_out = f"write it as slurm_{near[0]}={value}" if near else "those of Slurm begin with slurm_"
            said = str(error).splitlines()[0][:SAID]  # the others list what submitit knows
            refused = f"--slurm {name}: not an option of submitit's Slurm executor; {way_out} ({said})"
            raise FolderError("KD615", refused) from None
        except (AssertionError, AttributeError, TypeError, ValueError) as error:
            said = f"submitit does not take this value; correct it or leave it out ({_said(error)})"
            raise FolderError("KD615", f"--slurm {name}={value}: {said}") from None

    def _known(self) -> list[str]:
        """The names of Slurm's own settings."""
        return sorted(self.submitit.SlurmExecutor._valid_parameters())

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


def _said(error: BaseException) -> str:
    """What an exception says in one line; that of a command without a word has its exit code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:SAID] or cause(error.__cause__ or error)
