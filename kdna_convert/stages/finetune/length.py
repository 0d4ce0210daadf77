"""How long a fine-tune is, in steps or by the clock, and how much of that is done."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """`steps` where they are given, else `seconds`."""

    steps: int | None
    seconds: float | None

    def share(self, step: int, elapsed: float) -> float:
        """How much is done after so many steps and seconds, in [0, 1)."""
        if self.steps is not None:
            return step / self.steps
        return min(elapsed / (self.seconds or math.inf), 1 - 1e-6)

    def place(self, step: int, elapsed: float) -> float:
        """Where in the schedule a step lies: by its middle, so that neither the first nor the last is idle."""
        return self.share(step, elapsed) if self.steps is None else (step + 0.5) / self.steps

    def done(self, step: int, elapsed: float) -> bool:
        if self.steps is not None:
            return step >= self.steps
        return elapsed >= (self.seconds or math.inf)

    def total(self, step: int, elapsed: float) -> int:
        """The number of steps, estimated where the clock decides."""
        return self.steps if self.steps is not None else max(step, round(step / max(self.share(step, elapsed), 1e-9)))
