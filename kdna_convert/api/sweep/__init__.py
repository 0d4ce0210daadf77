"""The verb `sweep`: many nets, recipes, budgets and seeds, each a `kdna run`, on this machine or on a cluster.

tasks.py makes tasks of the jobs of a grid; scheduler.py runs them on an executor, one of local_processes.py,
ray_cluster.py and slurm_queue.py; execution.py is one command; rows.py is what it left, and the file of rows;
folder_lock.py keeps a second sweep out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ...core.atomic import require_writable
from ...core.errors import RecipeError
from ...core.interrupts import sigterm_as_interrupt
from ...core.progress import as_progress
from ...core.specs import Progress
from ...core.sweep_result import SweepResult, SweepRow
from ...inputs.recipe import parse_size
from ...inputs.sweep_grid import GridJob, load_grid, matching
from ..keywords import check_keywords
from .execution import SweepTask
from .executor import Executor
from .folder_lock import locked
from .local_processes import LocalProcesses, machine_cores, machine_memory
from .ray_cluster import RayCluster
from .rows import append_row, changed, is_done, read_rows, row_of
from .scheduler import run_tasks
from .slurm_queue import SlurmQueue
from .summary import write_summary
from .tasks import all_tasks, planned_jobs

if TYPE_CHECKING:
    from typing_extensions import Unpack

Where = Literal["local", "ray", "slurm"]
# The most jobs that are run unasked.
MOST = 500


class SweepOptions(TypedDict, total=False):
    """How much runs at once, and where.

    `jobs` and `memory` bound the local processes: by default as many as the cores allow, and most of the machine's
    memory. `cores` are the threads of a job, by default 1, `gpus` its GPUs. `device` is that of the jobs. `address` is
    that of the Ray cluster, None for one of this machine; `slurm` are submitit's settings. `retries` is how often a job
    that was killed is started again. `only` runs the jobs whose names match a pattern.
    `most` is the most jobs that the grid may have. `watch` is called with the tasks that run and with each row.
    """

    jobs: int | None
    memory: int | str | None
    cores: int
    gpus: float
    device: str
    address: str | None
    slurm: Mapping[str, Any]
    retries: int
    only: str | None
    most: int
    watch: Callable[[SweepTask | SweepRow], None]


def sweep(
    grid: str | Path,
    *,
    output: str | Path,
    on: Where = "local",
    progress: Progress | bool | None = None,
    **options: Unpack[SweepOptions],
) -> SweepResult:
    """Run every net of a grid with every recipe, budget and seed.

    The folder `output` has the jobs' folders in `jobs/`, a row for each in `sweep.jsonl`, and `summary.csv` and
    `summary.html`. The same call again runs only the jobs that are missing, have failed or have changed.

    Args:
        grid: the grid, a YAML file: see `kdna_convert.inputs.sweep_grid`.
        output: the folder of the sweep.
        on: local processes, a Ray cluster, or Slurm.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: see SweepOptions.

    Returns:
        The rows in the order of the grid. A job that failed is a row with its code and message.

    Raises:
        RecipeError: KD209 an invalid grid, KD210 one without jobs or with too many.
        FolderError: KD604 a folder that cannot be written, KD614 one in which a sweep is running, KD615 a cluster that
            cannot be reached.
    """
    check_keywords("sweep", options, SweepOptions)
    progress, folder, jobs = as_progress(progress), Path(output), load_grid(grid).jobs
    wanted = matching(jobs, options.get("only"))
    require_size(wanted, options.get("most", MOST))
    require_writable(folder / "x")
    with locked(folder) as held:
        cores, gpus, device = options.get("cores", 1), options.get("gpus", 0.0), options.get("device", "auto")
        planned = planned_jobs(wanted, folder, cores, gpus, device)
        rows = read_rows(folder)
        missing = [each for each in planned if not is_done(each, rows)]
        again = changed(missing, rows)
        missing = [replace(each, task=_forced(each.task)) if each.job.name in again else each for each in missing]
        work = _Work(folder, {each.job.name: each for each in missing}, rows, progress, options.get("watch"))
        try:
            if missing:
                with sigterm_as_interrupt():
                    _run(work, _executor(on, folder, held, options), options.get("retries", 1))
        finally:
            result = _result(Path(grid).name, jobs, work.rows)
            write_summary(folder, result)
    return result


@dataclass
class _Work:
    """The jobs that are to be run, and the rows so far. Every row is written as its job ends."""

    folder: Path
    planned: Mapping[str, Any]
    rows: dict[str, SweepRow]
    progress: Progress | None
    watch: Callable[[SweepTask | SweepRow], None] | None

    def began(self, task: SweepTask) -> None:
        task.cache.mkdir(parents=True, exist_ok=True)
        if self.watch is not None:
            self.watch(task)

    def ended(self, row: SweepRow) -> None:
        append_row(self.folder, row)
        self.rows[row.job] = row
        if self.watch is not None:
            self.watch(row)


def _run(work: _Work, executor: Executor, retries: int) -> None:
    """Run the tasks; whatever ends this ends what still runs."""
    tasks = all_tasks([*work.planned.values()])
    done, total = 0, len(work.planned)
    if work.progress is not None:
        work.progress("sweep", done, total)
    try:
        for task, outcome in run_tasks(tasks, executor, retries, work.began):
            if task.output is None:
                continue
            work.ended(row_of(work.planned[task.name], outcome))
            done += 1
            if work.progress is not None:
                work.progress(f"sweep: {task.name}", done, total)
    finally:
        executor.stop()


def _executor(on: Where, folder: Path, held: Sequence[int], options: SweepOptions) -> Executor:
    if on == "ray":
        return RayCluster(options.get("address"))
    if on == "slurm":
        return SlurmQueue(folder, options.get("slurm", {}))
    jobs, cores, memory = options.get("jobs"), options.get("cores", 1), options.get("memory")
    total = machine_cores() if jobs is None else jobs * cores
    return LocalProcesses(total, machine_memory() if memory is None else parse_size(memory), held)


def _forced(task: SweepTask) -> SweepTask:
    return replace(task, words=(*task.words, "--force"))


def _result(grid: str, jobs: Sequence[GridJob], rows: Mapping[str, SweepRow]) -> SweepResult:
    known = tuple(rows[job.name] for job in jobs if job.name in rows)
    return SweepResult(grid, known, tuple(job.name for job in jobs if job.name not in rows))


def require_size(jobs: Sequence[GridJob], most: int) -> None:
    """Raise RecipeError KD210 for more jobs than the caller expects."""
    if len(jobs) > most:
        raise RecipeError("KD210", f"the grid has {len(jobs):,} jobs, and at most {most:,} are run unasked; pass --yes")
