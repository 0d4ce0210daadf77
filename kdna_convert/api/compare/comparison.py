"""What a comparison comes to: a row for every net that was made, or was to be made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Axis = Literal["params", "bytes"]


@dataclass(frozen=True)
class Rung:
    """A budget that several tools are held to: the whole net's parameters, or the bytes of its file, at most `limit`.

    `share` is of the original net's.
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
    """One net. Shares lie in 0..1; None where a number could not be had: no labels, no such count, no net at all.

    `kept` is of the original's parameters, `bytes` the file that the tool writes, `macs` and `ms` (batch of one) are of
    the net as it runs, `kl` is KL(original || this) in nats an image, `seconds` what making it took. `rung` is None for
    what has no budget; `problem` is the one line that stands for a net which was not made.
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


@dataclass(frozen=True)
class Comparison:
    """All rows, the original's first, and what they were measured on."""

    model: str
    images: int  # that every row is measured on
    calibration: int  # that every tool may use, unlabeled
    device: str  # that milliseconds are of
    rungs: tuple[Rung, ...]
    rows: tuple[ComparisonRow, ...]
    skipped: tuple[str, ...] = ()
