"""The verb `sweep`: many nets, recipes, budgets and seeds, each a `kdna run`, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..core.atomic import disk_errors, require_writable
from ..core.errors import FolderError, KdnaError, RecipeError
from ..core.interrupts import signals_as_interrupt
from ..core.progress import as_progress
from ..core.specs import Progress
from ..core.sweep_result import SweepResult, SweepRow
from ..inputs.grid_reading import load_grid, matching
from ..inputs.recipe import parse_size
from ..inputs.sweep_grid import GridJob
from .keywords import check_keywords
from .sweeping.execution import SweepTask
from .sweeping.executor import Executor
from .sweeping.folder_lock import NAME as LOCK
from .sweeping.folder_lock import locked
from .sweeping.local_processes import LocalProcesses, machine_cores, machine_memory
from .sweeping.ray_cluster import RayCluster
from .sweeping.rows import FILE, append_row, current, is_done, overwrites, read_rows, row_of
from .sweeping.scheduler import run_tasks
from .sweeping.slurm_queue import SlurmQueue
from .sweeping.summary import write_summary
from .sweeping.tasks import CACHE, JOBS, PlannedJob, all_tasks, planned_jobs, with_memory

if TYPE_CHECKING:
    from typing_extensions import Unpack

Where = Literal["local", "ray", "slurm"]
# The most jobs that are run unasked.
MOST = 500


@dataclass(frozen=True)
class SweepEvent:
    """A task has started, or ended. `row` is that of a job that has ended."""

    task: SweepTask
    ended: bool
    row: SweepRow | None = None


class SweepOptions(TypedDict, total=False):
    """How much runs at once, and where.

    `jobs` and `memory` bound the local processes: by default as many as the cores allow, and most of the machine's
    memory. `cores` are the threads of a job, by default 1, `gpus` its GPUs. `device` is that of the jobs. `address` is
    that of the Ray cluster, None for one of this machine; `slurm` are submitit's settings. `retries` is how often a job
    that was killed is started again. `only` runs the jobs whose names match a pattern. `most` is the most jobs that may
    be run, by default 500. `command` is what the page names. `watch` is called with each SweepEvent.
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
    command: str | None
    watch: Callable[[SweepEvent], None]


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
            cannot be reached, KD601 a folder that has other things in it.
    """
    check_keywords("sweep", options, SweepOptions)
    folder, jobs = Path(output), load_grid(grid).jobs
    wanted = {job.name for job in matching(jobs, options.get("only"))}
    require_size(len(wanted), options.get("most", MOST))
    require_own(folder)
    with locked(folder) as held:
        device = options.get("device", "auto")
        planned = planned_jobs(jobs, folder, options.get("cores", 1), options.get("gpus", 0.0), device)
        written = read_rows(folder)
        work = _Work(folder, current(planned, written), as_progress(progress), options.get("watch"))
        missing = [each for each in planned if each.job.name in wanted and not is_done(each, work.rows)]
        for each in planned:
            if each.job.name in wanted and is_done(each, work.rows):
                work.tell(SweepEvent(each.task, ended=True, row=work.rows[each.job.name]))
        missing = [replace(each, task=_forced(each.task)) if overwrites(each, written) else each for each in missing]
        try:
            if missing:
                _run(work, missing, _executor(on, folder, held, options), options)
        except BaseException:
            with suppress(KdnaError, OSError):
                if work.rows:
                    write_summary(folder, _result(grid, jobs, work.rows), options.get("command"))
            raise
        result = _result(grid, jobs, work.rows)
        write_summary(folder, result, options.get("command"))
    return result


@dataclass
class _Work:
    """The current rows of a sweep. Every row is written as its job ends."""

    folder: Path
    rows: dict[str, SweepRow]
    progress: Progress | None
    watch: Callable[[SweepEvent], None] | None

    def began(self, task: SweepTask) -> None:
        with disk_errors(task.cache):
            task.cache.mkdir(parents=True, exist_ok=True)
        self.tell(SweepEvent(task, ended=False))

    def add(self, row: SweepRow) -> None:
        append_row(self.folder, row)
        self.rows[row.job] = row

    def tell(self, event: SweepEvent) -> None:
        if self.watch is not None:
            self.watch(event)


def _run(work: _Work, missing: Sequence[PlannedJob], executor: Executor, options: SweepOptions) -> None:
    """Run the jobs and what they share; whatever ends this ends what still runs."""
    device = options.get("device", "auto")
    try:
        with signals_as_interrupt():
            planned = {each.job.name: each for each in with_memory(missing, device)}
            tasks, done = all_tasks([*planned.values()], device), 0
            if work.progress is not None:
                work.progress("sweep", done, len(planned))
            for task, outcome in run_tasks(tasks, executor, options.get("retries", 1), work.began):
                if task.name not in planned:
                    work.tell(SweepEvent(task, ended=True))
                    continue
                row = row_of(planned[task.name], outcome)
                work.add(row)
                work.tell(SweepEvent(task, ended=True, row=row))
                done += 1
                if work.progress is not None:
                    work.progress(f"sweep: {task.name}", done, len(planned))
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


def _result(grid: str | Path, jobs: Sequence[GridJob], rows: Mapping[str, SweepRow]) -> SweepResult:
    known = tuple(rows[job.name] for job in jobs if job.name in rows)
    return SweepResult(Path(grid).name, known, tuple(job.name for job in jobs if job.name not in rows))


def require_own(folder: Path) -> None:
    """Refuse what is no place of a sweep: KD604 if it cannot be written, KD601 if it has other things in it."""
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise FolderError("KD604", f"{folder} is a file; name a folder")
        require_writable(folder / FILE if folder.exists() else folder)
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if names and not names & {LOCK, FILE, JOBS, CACHE}:
            raise FolderError("KD601", f"{folder} has other files than those of a sweep; name a new or an empty one")


def require_size(jobs: int, most: int) -> None:
    """Raise RecipeError KD210 for more jobs than the caller expects."""
    if jobs > most:
        way_out = "pass --yes (most= in Python), or --only a part of them"
        raise RecipeError("KD210", f"the grid has {jobs:,} jobs, and at most {most:,} are run unasked; {way_out}")
