"""The length of a fine-tune in steps or seconds, and the share of it that is done."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """A number of steps, or of seconds if `steps` is None."""

    steps: int | None
    seconds: float | None

    def share(self, step: int, elapsed: float) -> float:
        """The share that is done after this many steps and seconds, in [0, 1)."""
        if self.steps is not None:
            return step / self.steps
        return min(elapsed / (self.seconds or math.inf), 1 - 1e-6)

    def place(self, step: int, elapsed: float) -> float:
        """The position of a step in the schedule: its middle, so that no step has rate 0."""
        return self.share(step, elapsed) if self.steps is None else (step + 0.5) / self.steps

    def done(self, step: int, elapsed: float) -> bool:
        if self.steps is not None:
            return step >= self.steps
        return elapsed >= (self.seconds or math.inf)

    def total(self, step: int, elapsed: float) -> int:
        """The number of steps; an estimate if the length is in seconds."""
        return self.steps if self.steps is not None else max(step, round(step / max(self.share(step, elapsed), 1e-9)))
