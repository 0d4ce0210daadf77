"""The tasks of a sweep: one for every job, and one for what the jobs of a net share."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import KdnaError
from ...inputs.recipe import load_recipe
from ...inputs.sweep_grid import GridJob
from ..expected_cost import expected_cost
from ..keywords import JobOptions
from .execution import SweepTask

JOBS, CACHE = "jobs", "cache"
BLOCK = 2**20
# Bytes of a job whose net cannot be opened here.
UNKNOWN = 2 * 2**30
_CODE = re.compile(r"(.+?\.py):")  # the file of path/to/file.py:function
RESERVE = 1.2  # the expected peak is right within a factor; see benchmarks/cost_model.py


@dataclass(frozen=True)
class PlannedJob:
    """A job with its task. `mark` is the hash of what its result depends on, `command` the one that repeats it."""

    job: GridJob
    task: SweepTask
    mark: str
    command: str


def planned_jobs(jobs: Sequence[GridJob], folder: Path, cores: int, gpus: float, device: str) -> list[PlannedJob]:
    """The jobs of a grid as tasks that write into `folder`, each with `cores` threads. No net is opened."""
    sums: dict[str, str] = {}
    planned = []
    for job in jobs:
        words, output = _run_words(job, device), folder / JOBS / job.name
        cache = folder / CACHE / (job.net.name if job.seed is None else f"{job.net.name}-seed{job.seed}")
        task = SweepTask(job.name, job.net.name, tuple(words), cache, output, None, cores, 0, gpus)
        command = shlex.join(command_of(job, folder, device))
        planned.append(PlannedJob(job, task, _mark(job, words, sums), command))
    return planned


def with_memory(planned: Sequence[PlannedJob], device: str) -> list[PlannedJob]:
    """The jobs with the memory that `kdna plan --dry-run` expects, which opens each net once for a recipe."""
    memory: dict[str, int] = {}
    found = []
    for each in planned:
        key = json.dumps([each.job.net.name, each.job.recipe.name])
        if key not in memory:
            memory[key] = _expected_memory(each.job, device)
        found.append(replace(each, task=replace(each.task, memory=memory[key])))
    return found


def command_of(job: GridJob, folder: Path, device: str) -> list[str]:
    """The `kdna run` of a job, as a user types it."""
    return ["kdna", *_run_words(job, device), "-o", str(folder / JOBS / job.name)]


def all_tasks(planned: Sequence[PlannedJob], device: str) -> list[SweepTask]:
    """The jobs, each with what it shares with others of its net before it.

    A net is calibrated once for a seed, and its errors are predicted once for a recipe: one task does so for each, one
    after another. A job of a recipe without fits has nothing to wait for.
    """
    shared: dict[str, SweepTask] = {}
    tasks, last = [], dict[str, str]()
    for each in planned:
        job = each.job
        if not load_recipe(job.recipe.recipe, job.changes).fits:
            tasks.append(each.task)
            continue
        net = each.task.cache.name
        name = f"{net}, {job.recipe.name}"
        if name not in shared:
            words = tuple(_plan_words(job, device))
            shared[name] = replace(each.task, name=f"calibrate {name}", words=words, output=None, after=last.get(net))
            last[net] = shared[name].name
            tasks.append(shared[name])
        tasks.append(replace(each.task, after=shared[name].name))
    return tasks


def _run_words(job: GridJob, device: str) -> list[str]:
    """The arguments of `kdna` that run a job."""
    words = ["run", job.recipe.recipe, job.net.model, *_net_words(job), *job.budget.flags]
    words += [] if job.eval_data is None else ["--eval-data", job.eval_data]
    words += [] if job.net.metric is None else ["--metric", job.net.metric]
    return [*words, *_device(device)]


def _plan_words(job: GridJob, device: str) -> list[str]:
    """The arguments of `kdna` that calibrate a net and predict the errors of a recipe."""
    return ["plan", job.net.model, "--recipe", job.recipe.recipe, *_net_words(job), *_device(device), "--curve"]


def _device(device: str) -> list[str]:
    return [] if device == "auto" else ["--device", device]


def _net_words(job: GridJob) -> list[str]:
    data = [] if job.data is None else ["--data", job.data]
    return [*job.net.flags, *data, *(word for change in job.changes for word in ("--set", change))]


def _mark(job: GridJob, words: Sequence[str], sums: dict[str, str]) -> str:
    """The hash of the command, the recipe and the files that they name: weights, code and class names.

    `sums` keeps those of files that were read before.
    """
    recipe, net = load_recipe(job.recipe.recipe, job.changes).model_dump(mode="json"), job.net
    code = [found[1] for text in (net.model, net.outputs, net.metric) if (found := _CODE.match(text or ""))]
    files = [file for file in (net.checkpoint, net.class_map, *code) if file is not None]
    for file in files:
        if file not in sums:
            sums[file] = _sum(Path(file))
    known = json.dumps([*words, recipe, *(sums[file] for file in files)], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()


def _sum(path: Path) -> str:
    """The sha256 of a file; empty for one that is not here."""
    try:
        with path.open("rb") as file:
            found = hashlib.sha256()
            while block := file.read(BLOCK):
                found.update(block)
            return found.hexdigest()
    except OSError:
        return ""


def _expected_memory(job: GridJob, device: str) -> int:
    """The bytes that a conversion of the job's net is expected to hold. A net that fails does so in its job."""
    net = job.net
    size = [] if net.input_size is None else re.findall(r"\d+", str(net.input_size))
    given: JobOptions = {"checkpoint": net.checkpoint, "checkpoint_key": net.checkpoint_key, "device": device}
    given |= {"checkpoint_prefix": net.checkpoint_prefix, "class_map": net.class_map, "task": net.task}
    given |= {"outputs": net.outputs, "inputs": {"input_size": [int(side) for side in size]} if size else {}}
    try:
        recipe = load_recipe(job.recipe.recipe, job.changes)
        cost = expected_cost(net.model, recipe=recipe, data=job.data, **given)
    except (KdnaError, TypeError, ValueError):
        return UNKNOWN
    return int(RESERVE * cost.bytes)
