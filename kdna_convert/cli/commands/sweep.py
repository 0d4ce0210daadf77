"""`kdna sweep`: many nets at many budgets, on this machine or on a cluster."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...core.errors import GuardError
from ...core.shown import shown
from .console import COMMAND, PlainConsole, in_terminal, reporting, show, show_json, tell
from .grouped import grouped
from .option_values import Text, checked, device
from .options import JsonFlag

if TYPE_CHECKING:  # imports pydantic, which --help does not need
    from ...api.sweep import SweepEvent
    from ...core.sweep_result import SweepRow

STOPPED = "kdna: stopped. Finished jobs are in {folder}. Run the same command again for the others."
# Options that have no effect in other places.
ELSEWHERE = {
    "address": ("ray",),
    "slurm": ("slurm",),
    "gpus": ("ray", "slurm"),
    "jobs": ("local",),
    "memory": ("local",),
}
_where = partial(typer.Option, rich_help_panel="Where")


@dataclass(frozen=True)
class SweepFlags:
    """Where the jobs run, and how many at once."""

    on: Annotated[
        Literal["local", "ray", "slurm"],
        _where(metavar="PLACE", help="local: processes of this machine. ray: a Ray cluster. slurm: Slurm."),
    ] = "local"
    jobs: Annotated[
        int | None, _where(metavar="N", min=1, help="local: jobs at once. Default: as many as cores and memory allow.")
    ] = None
    memory: Annotated[
        Text,
        _where(
            metavar="SIZE",
            help="local: memory for all jobs, by their expected peaks: 16GiB. Default: most of the machine's.",
            callback=checked("parse_size"),
        ),
    ] = None
    cores: Annotated[int, _where(metavar="N", min=1, help="Threads of a job.")] = 1
    gpus: Annotated[float, _where(metavar="N", min=0, help="ray, slurm: GPUs of a job.")] = 0.0
    device: Annotated[str, _where(metavar="DEVICE", help="Device of the jobs: auto, cpu or cuda.")] = "auto"
    address: Annotated[
        Text,
        _where(
            metavar="ADDRESS",
            help="ray: HOST:PORT, ray://HOST:PORT, auto or local. Default: RAY_ADDRESS, else one here.",
        ),
    ] = None
    slurm: Annotated[
        list[str] | None,
        _where(metavar="KEY=VALUE", help="slurm: a setting of submitit, such as slurm_partition=gpu. Repeatable."),
    ] = None
    retries: Annotated[int, _where(metavar="N", min=0, help="Times that a killed job is started again.")] = 1

    @property
    def arguments(self) -> dict[str, Any]:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for option, places in ELSEWHERE.items():
            if given[option] and self.on not in places:
                raise typer.BadParameter(f"is for --on {' and '.join(places)}", param_hint=f"--{option}")
        device(self.device)
        return given | {"slurm": dict(map(_setting, self.slurm or []))}


@grouped
def sweep(
    ctx: typer.Context,
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="YAML file of models, recipes, budgets and seeds.")],
    where: SweepFlags,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the sweep.")
    ] = None,
    only: Annotated[
        Text, typer.Option(metavar="PATTERN", help="Run only the jobs whose names match, as 'resnet20-*'.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run a grid of any size unasked.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands only.")] = False,
    json: JsonFlag = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no hints on stderr.")] = False,
) -> None:
    """Run every net of a grid with every recipe, budget and seed, each as `kdna run`.

    The same command again runs what is missing, has failed or has changed. FOLDER has the nets in jobs/, a row for each
    in sweep.jsonl, and summary.csv and summary.html. The exit code is 3 if a job failed.

    Example:
        kdna sweep examples/sweep.yaml -o sweep
    """
    from ...inputs.grid_reading import load_grid, matching

    jobs = matching(load_grid(grid).jobs, only)
    if output is None:
        raise typer.BadParameter("required: where to write", param_hint="-o")
    options = where.arguments
    from ...api.sweep import MOST, require_size
    from ...api.sweep import sweep as stage
    from ..report.sweep import sweep_report

    most = len(jobs) if yes or dry_run or _agreed(len(jobs), MOST) else MOST
    if dry_run:
        from ...api.sweeping.tasks import command_of

        for job in jobs:
            typer.echo(shown(shlex.join(command_of(job, output, where.device))))
        return
    require_size(len(jobs), most)
    nets = dict(Counter(job.net.name for job in jobs))
    try:
        with _watching(nets, quiet) as watch:
            options |= watch | {"only": only, "command": ctx.meta[COMMAND]}
            result = stage(grid, output=output, most=most, **options)
    except KeyboardInterrupt:
        tell(STOPPED.format(folder=output))
        raise
    show_json(result) if json else show(sweep_report(result))
    tell(f"written to {output}\nsummary.html in it shows the result, summary.csv has all rows", quiet)
    names = {job.name for job in jobs}
    if any(row.job in names for row in result.failed):
        raise typer.Exit(GuardError.exit_code)


def _agreed(jobs: int, most: int) -> bool:
    """Whether the user agrees to a large grid. Where nobody can be asked, the library refuses it."""
    return jobs > most and in_terminal() and typer.confirm(f"the grid has {jobs:,} jobs. Run them?", err=True)


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as YAML, but for a time such as 2:00:00, which YAML reads as a number to base 60."""
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text}: write it as key=value", param_hint="--slurm")
    return key, value if re.fullmatch(r"[\d:-]*:[\d:]*", value) else yaml.safe_load(value)


@contextmanager
def _watching(nets: dict[str, int], quiet: bool) -> Iterator[dict[str, Any]]:
    """The arguments that show progress: a live table in a terminal, else a line for each job."""
    if quiet or not sys.stderr.isatty():
        with reporting(quiet) as progress:
            yield {"progress": progress}
        return
    from rich.live import Live

    from ..report.sweep import live_table

    rows: list[SweepRow] = []
    running: dict[tuple[str, str], float] = {}  # when the tasks began, by net and name
    began = time.monotonic()

    def table() -> Any:
        now = time.monotonic()
        return live_table(nets, rows, {each: now - start for each, start in running.items()}, now - began)

    def watch(event: SweepEvent) -> None:
        task = event.task.net, event.task.name
        running.pop(task, None)
        if not event.ended:
            running[task] = time.monotonic()
        elif event.row is not None:
            rows.append(event.row)

    console = PlainConsole(stderr=True)
    with Live(console=console, get_renderable=table, refresh_per_second=2, transient=True):
        yield {"watch": watch}
