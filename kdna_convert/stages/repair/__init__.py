"""Repair: reduce the error of a converted net without labels or training, by the recipe's steps in order.

`STEPS` is the table, step.py the interface. Each step changes the converted net in place, from unlabeled images and
the original net. A step is kept only if it lowers the divergence from the original on held-out images (run_steps.py,
docs/decisions/0009-repair.md).
"""

from __future__ import annotations

from ...core.specs import Options
from .norms import Correct, Reestimate
from .reconstruct import Reconstruct
from .refit import Refit
from .step import Step

__all__ = ["STEPS", "Step", "step_of"]

STEPS: dict[str, type[Step]] = {step.name: step for step in (Refit, Correct, Reestimate, Reconstruct)}


def step_of(name: str, options: Options) -> Step:
    """The repair step of that name with these options, which `check_options` has checked."""
    return STEPS[name](**options)
