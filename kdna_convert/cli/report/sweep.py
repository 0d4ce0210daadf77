"""The result of `kdna sweep`: a table of what each net keeps, and the live table while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...core.amounts import count, measured, percent, size
from ...core.measurements import MEASURES
from ...core.progress import minutes
from ...core.sweep_result import SweepPoint, SweepResult, SweepRow
from .figures import grid, note

SHOWN = 8  # tasks that run, in the live table


def sweep_report(result: SweepResult) -> RenderableType:
    """A table for each net, then the jobs that failed."""
    parts: list[RenderableType] = []
    for net in dict.fromkeys(point.net for point in result.points):
        own = [point for point in result.points if point.net == net]
        parts += [_heading(own[0]), _table(own), ""]
    if any(point.seeds > 1 for point in result.points):
        parts += [note("±: half of the range over the seeds"), ""]
    for row in result.failed:
        parts.append(Text(f"{row.job}: {'failed' if row.code is None else f'error {row.code}'}: {row.message}"))
    total = len(result.rows) + len(result.missing)
    done = f"{len(result.rows) - len(result.failed)} of {total} jobs done"
    rest = [f"{len(result.failed)} failed"] if result.failed else []
    rest += [f"{len(result.missing)} not run"] if result.missing else []
    return Group(*parts, ", ".join([done, *rest]))


def _heading(point: SweepPoint) -> Text:
    """`resnet20: 272,474 parameters, 1.12 MB, top-1 91.90 %`."""
    sizes = f"{count(round(point.params / point.kept[0]))} parameters, {size(round(point.bytes / point.kept[1]))}"
    known = point.measure is not None and point.original is not None
    score = f", {_title(point)} {measured(point.measure or '', point.original or 0.0)}" if known else ""
    return Text(f"{point.net}: {sizes}{score}", style="bold")


def _table(points: Sequence[SweepPoint]) -> Table:
    score = _title(points[0]) if points[0].measure else "score"
    table = grid("recipe", "budget", ">params", ">kept", ">bytes", ">kept", f">{score}", ">s")
    for each in points:
        name = each.measure or ""
        value = "-" if each.score is None else measured(name, each.score)
        value += f" ±{_spread(name, each.spread / 2)}" if each.seeds > 1 else ""
        sizes = (count(round(each.params)), percent(each.kept[0]), size(round(each.bytes)), percent(each.kept[1]))
        table.add_row(each.recipe, each.budget, *sizes, value, f"{each.seconds:.0f}")
    return table


def _title(point: SweepPoint) -> str:
    return MEASURES[point.measure].title if point.measure in MEASURES else point.measure or ""


def _spread(name: str, value: float) -> str:
    unit = MEASURES[name].unit if name in MEASURES else ""
    return f"{100 * value:.2f}" if unit == "%" else f"{value:.2g}"


def live_table(
    nets: Mapping[str, int], rows: Sequence[SweepRow], running: Mapping[tuple[str, str], float], spent: float
) -> Table:
    """Progress by net, and what runs now.

    Args:
        nets: The number of jobs of each net that are run.
        rows: Those that have ended.
        running: The seconds that each task has run, by its net and its name.
        spent: The seconds since the sweep began.
    """
    done = Counter(row.net for row in rows if row.state == "done")
    failed = Counter(row.net for row in rows if row.state == "failed")
    table = grid("net", ">done", ">failed", ">of", "running")
    for net, total in nets.items():
        own = [f"{name} {minutes(seconds)}" for (of, name), seconds in running.items() if of == net]
        names = ", ".join(own[:SHOWN]) + (f" and {len(own) - SHOWN} more" if len(own) > SHOWN else "")
        table.add_row(net, str(done[net]), str(failed[net]) if failed[net] else "", str(total), names)
    ended, total = len(rows), sum(nets.values())
    table.add_row("", str(sum(done.values())), "", str(total), f"{minutes(spent)}, {total - ended} left")
    return table
