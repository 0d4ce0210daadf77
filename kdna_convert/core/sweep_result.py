"""The result of a sweep: a row for every job, done or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from statistics import fmean
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .notebook import InNotebooks

# A row of another version may have keys that this one does not know: they are dropped.
_LENIENT = ConfigDict(extra="ignore", ser_json_inf_nan="constants")
# A measure with labels, or else the agreement with the original, in the order of preference.
SCORES = ("metric", "top1", "accuracy", "map", "miou", "sequences", "psnr", "agreement")


@dataclass(frozen=True, config=_LENIENT)
class Measured:
    """A net's size, and its measures by their name in MEASURES."""

    params: int
    bytes: int
    macs: int | None = None
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, config=_LENIENT)
class SweepRow:
    """One job of a sweep.

    Attributes:
        job: Its name, which its folder has too.
        net: The net's name in the grid.
        recipe: The recipe's name in the grid.
        budget: As "params 0.5" or "bytes 1/20".
        seed: None for the recipe's own.
        command: The `kdna run` that repeats it.
        mark: The hash of what the row depends on.
        state: Whether there is a net.
        code: The code of the error. None for a done job, and for an error of kdna itself.
        message: The error in one line.
        original: The original; its measures are empty without labels.
        result: The net.
        seconds: The time of the command; of its stages where an earlier command did them.
        cpu_seconds: That of all its threads; 0 where unknown.
        peak_bytes: The most memory that it held; 0 where unknown.
        host: The machine that ran it.
        sums: The sha256 of the folder's files.
        versions: Of kdna, torch and Python, and the processor, where it ran.
    """

    job: str
    net: str
    recipe: str
    budget: str
    seed: int | None
    command: str
    mark: str
    state: Literal["done", "failed"]
    code: str | None = None
    message: str | None = None
    original: Measured | None = None
    result: Measured | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    host: str = ""
    sums: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def score(self) -> tuple[str, float] | None:
        """The measure that a summary shows, with its name; None for a failed job."""
        if self.result is None:
            return None
        known = self.result.measures
        return next(((name, known[name]) for name in SCORES if name in known), None)


@dataclass(frozen=True, config=_LENIENT)
class SweepResult(InNotebooks):
    """The rows of a sweep, in the order of its grid.

    Attributes:
        grid: The name of the grid's file.
        rows: One for each job that has ended.
        missing: The jobs that have not.
    """

    grid: str
    rows: tuple[SweepRow, ...]
    missing: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[SweepRow, ...]:
        return tuple(row for row in self.rows if row.state == "failed")

    @property
    def points(self) -> tuple[SweepPoint, ...]:
        """The done jobs, those that differ in the seed alone as one point."""
        groups: dict[tuple[str, str, str], list[SweepRow]] = {}
        for row in self.rows:
            if row.state == "done" and row.result is not None:
                groups.setdefault((row.net, row.recipe, row.budget), []).append(row)
        return tuple(_point(rows) for rows in groups.values())


@dataclass(frozen=True)
class SweepPoint:
    """A net by a recipe at a budget, over the seeds.

    Attributes:
        net, recipe, budget: As in SweepRow.
        seeds: How many.
        kept: The mean shares of the original's parameters and bytes.
        params: Mean parameters.
        bytes: Mean bytes.
        measure: The measure's name in MEASURES; None where nothing was measured.
        score: Its mean.
        spread: The largest less the smallest over the seeds; 0 for one.
        original: The measure of the original; None without labels.
        seconds: Mean seconds of a job.
    """

    net: str
    recipe: str
    budget: str
    seeds: int
    kept: tuple[float, float]
    params: float
    bytes: float
    measure: str | None
    score: float | None
    spread: float
    original: float | None
    seconds: float


def _point(rows: Sequence[SweepRow]) -> SweepPoint:
    first, results = rows[0], [row.result for row in rows if row.result is not None]
    params, size = fmean(each.params for each in results), fmean(each.bytes for each in results)
    whole = first.original
    kept = (params / whole.params, size / whole.bytes) if whole else (1.0, 1.0)
    score = first.score
    own: dict[str, Any] = {"measure": None, "score": None, "spread": 0.0, "original": None}
    if score is not None:
        values = [each.measures[score[0]] for each in results if score[0] in each.measures]
        reference = whole.measures.get(score[0]) if whole else None
        own = {"measure": score[0], "score": fmean(values), "spread": max(values) - min(values), "original": reference}
    seconds = fmean(row.seconds for row in rows)
    return SweepPoint(first.net, first.recipe, first.budget, len(rows), kept, params, size, **own, seconds=seconds)


def front(points: Sequence[SweepPoint], axis: Literal["params", "bytes"]) -> tuple[SweepPoint, ...]:
    """The points of one net that no other one beats: none is smaller and scores as much."""
    best: list[SweepPoint] = []
    for point in sorted(points, key=lambda each: (getattr(each, axis), -(each.score or 0.0))):
        if point.score is not None and (not best or point.score > (best[-1].score or 0.0)):
            best.append(point)
    return tuple(best)
