"""Which limit no plan keeps, and the nearest value that one can keep. No torch, no model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace

from ...core.errors import PlanError
from .limits import FLAGS, shown
from .offers import Problem, Row, any_plan, least_of


def impossible(problem: Problem) -> PlanError:
    """The error if no choice of families keeps the limit of memory, although each layer could."""
    if problem.peak is None or problem.peak.allowed is None:
        return PlanError("KD501", "the families overlap so that no choice has every layer in one family at most")
    return conflict(problem)


def conflict(problem: Problem) -> PlanError:
    """The error if no plan keeps everything: the limit that has to be raised least, and the value that it needs."""
    nearest = [*_rows(problem), *_memory(problem)]
    if not nearest:
        return PlanError("KD501", f"no plan keeps {_all(problem, problem.rows)}")
    return PlanError("KD501", min(nearest)[1])


def _rows(problem: Problem) -> Iterator[tuple[float, str]]:
    """For each row that can be raised: how many times, and the message."""
    for row in problem.rows:
        others = tuple(other for other in problem.rows if other is not row)
        sizes = least_of(problem, row, problem.allowed, others)
        if sizes is not None:
            needed = row.total(sizes)
            text = (
                f"{row.within} cannot be met together with {_all(problem, others)}; the nearest is {row.text(needed)}"
            )
            yield needed / max(row.amount, 1), text


def _memory(problem: Problem) -> Iterator[tuple[float, str]]:
    """The same of the limit of memory."""
    peak = problem.peak
    if peak is None or peak.allowed is None:
        return
    allowed = peak.allowed
    steps = {peak.peak(number, size).bytes for number, sizes in enumerate(problem.grids) for size in sizes}
    raised = sorted(step for step in {*steps, *peak.dense.values()} if step > allowed)

    def suffices(limit: int) -> bool:
        wider = replace(problem, peak=replace(peak, allowed=limit))
        if not problem.rows:
            return any_plan(wider, wider.allowed) is not None
        return least_of(wider, problem.rows[0], wider.allowed, problem.rows) is not None

    place = bisect_left(raised, True, key=suffices)
    if place < len(raised):
        rest = f" together with {_all(replace(problem, peak=None), problem.rows)}" if problem.rows else ""
        own = _all(problem, ())
        yield (
            raised[place] / allowed,
            f"{own} cannot be met{rest}; the nearest is {shown('peak memory', raised[place])}",
        )


def _all(problem: Problem, rows: tuple[Row, ...]) -> str:
    """These rows and the limit of memory: --max-flash 100 kB and --max-peak-memory 20 kB."""
    parts = [row.within for row in rows]
    if problem.peak is not None and problem.peak.allowed is not None:
        parts.append(f"{FLAGS['peak memory']} {shown('peak memory', problem.peak.allowed)}")
    return " and ".join(parts)
