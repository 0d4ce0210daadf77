"""The result of a comparison: a row for every net, made or failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .notebook import InNotebooks

Axis = Literal["params", "bytes"]
# The peer that is kdna itself.
OURS = "kdna"


@dataclass(frozen=True)
class Rung:
    """A budget for several tools: at most `limit` parameters of the whole net, or bytes of its file.

    `share` is the limit as a share of the original.
    """

    axis: Axis
    share: float
    limit: int

    @property
    def label(self) -> str:
        if self.axis == "params":
            return f"{100 * self.share:.3g} % of the parameters"
        return f"{self.limit:,} bytes, 1/{1 / self.share:.3g} of the file"


@dataclass(frozen=True)
class ComparisonRow:
    """One net. Numbers that are not known are None: no labels, no such count, or no net.

    Attributes:
        peer: The tool, a key of PEERS, or ORIGINAL.
        title: The name of the row.
        rung: The budget; None for a tool without one.
        params: The number of parameters.
        kept: The share of the original's parameters, 0..1.
        bytes: The size of the tool's file.
        macs: Multiply-adds per image, of the net as it runs.
        ms: Milliseconds for a batch of one, of the net as it runs.
        top1: The accuracy, 0..1.
        agreement: The top-1 agreement with the original, 0..1.
        kl: KL(original || net) in nats per image.
        seconds: The time to make the net.
        problem: Why there is no net, in one line.
        logit_error: As in Divergence.
        measures: Other measures of the task, with labels where there are, by their name in MEASURES.
    """

    peer: str
    title: str
    rung: Rung | None
    params: int | None = None
    kept: float | None = None
    bytes: int | None = None
    macs: int | None = None
    ms: float | None = None
    top1: float | None = None
    agreement: float | None = None
    kl: float | None = None
    seconds: float | None = None
    problem: str | None = None
    logit_error: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The line of a chart that it is on: the two kinds of budget of kdna, which have other recipes, are two."""
        if self.peer != OURS:
            return self.title
        return f"{self.title}, by {'bytes' if self.rung and self.rung.axis == 'bytes' else 'parameters'}"


@dataclass(frozen=True)
class Comparison(InNotebooks):
    """All rows, first that of the original, and how they were measured.

    Attributes:
        model: The name of the net.
        images: The number of images that every net is measured on.
        calibration: The number of unlabeled images that every tool may use.
        device: The device of the timing.
        rungs: The budgets.
        rows: The rows.
        skipped: Images that could not be read.
        task: What the outputs mean, a key of TASKS.
    """

    model: str
    images: int
    calibration: int
    device: str
    rungs: tuple[Rung, ...]
    rows: tuple[ComparisonRow, ...]
    skipped: tuple[str, ...] = ()
    task: str = "classify"
