"""Repair: what can be won back without labels or training once a net is converted: the recipe's steps, in order.

Each step changes the converted net in place, from unlabelled images and the original; `mend` keeps it only where it
lowers the divergence from the original on held-back images (docs/decisions/0009-repair.md).
"""

from __future__ import annotations

from typing import Protocol

from ...core.specs import Options
from .nets import Nets, Tick
from .norms import Correct, Reestimate
from .reconstruct import Reconstruct
from .refit import Refit


class Step(Protocol):
    """A frozen dataclass whose fields are the recipe's options."""

    def run(self, nets: Nets, begin: int, tick: Tick) -> dict[str, str]:
        """Change `nets.converted` in place, from block `begin` on; call `tick(done, of)` after every block.

        Returns what was left out, by layer: the code of the reason.
        """
        ...


STEPS: dict[str, type[Step]] = {
    "refit": Refit,
    "correct": Correct,
    "reestimate": Reestimate,
    "reconstruct": Reconstruct,
}


def step_of(name: str, options: Options) -> Step:
    return STEPS[name](**options)
