"""The steps of a repair one after the other, each kept only where it helps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter
from torch import nn

from ...core.errors import NumericsError
from ...core.specs import Divergence, Options, Progress
from ...network.folder.report import StepResult
from . import Step, step_of
from .ledger import Ledger, Position, state_of
from .nets import Nets

Measure = Callable[[nn.Module], Divergence]


@dataclass(frozen=True)
class _Seen:
    """A net's divergence, and the KL by which it is judged."""

    divergence: Divergence
    kl: float


def mend(
    nets: Nets,
    steps: Sequence[tuple[str, Options]],
    measure: Measure,
    *,
    judge: Measure | None = None,
    ledger: Ledger | None = None,
    position: Position | None = None,
    progress: Progress | None = None,
) -> tuple[StepResult, ...]:
    """Run the steps on `nets.converted`, in place. A step that does not lower the KL divergence, by `judge` where there
    is one and else by `measure`, is undone.

    With a `ledger`, what is done is written down as it goes; `position`, as the ledger read it, is gone on from.
    """

    def look(net: nn.Module) -> _Seen:
        seen = measure(net)
        return _Seen(seen, (seen if judge is None else judge(net)).kl)

    here = position or Position()
    done = TypeAdapter(list[StepResult]).validate_python(here.records)
    seen = look(nets.converted) if not here.before else None
    for place in range(here.step, len(steps)):
        name, options = steps[place]
        step = step_of(name, options)
        if not here.before:
            here.before = state_of(nets.converted)
        here.step = place
        seen = seen or _measured_before(nets, here, look)
        mended, seen = _run(nets, name, step, seen, here, look, ledger, progress)
        done.append(mended)
        here = Position(place + 1, 0, [asdict(one) for one in done], here.notes)
        if ledger is not None:
            ledger.write(nets.converted, here, now=True)
    return tuple(done)


def _run(
    nets: Nets,
    name: str,
    step: Step,
    before: _Seen,
    here: Position,
    look: Callable[[nn.Module], _Seen],
    ledger: Ledger | None,
    progress: Progress | None,
) -> tuple[StepResult, _Seen]:
    """What became of the step, and how the net is seen after it."""
    began = time.perf_counter()

    def tick(done: int, of: int) -> None:
        here.block = done
        if ledger is not None:
            ledger.write(nets.converted, here)
        if progress is not None:
            progress(f"repair: {name}", done, of)

    after: _Seen | None = None
    try:
        left_out = step.run(nets, here.block, tick)
        after = None if "" in left_out else look(nets.converted)
    except NumericsError:  # answers that are not finite: a step not to keep
        left_out = {}
    kept = after is not None and math.isfinite(after.kl) and after.kl < before.kl
    if not kept:
        nets.converted.load_state_dict(here.before)
    seconds = round(time.perf_counter() - began, 2)
    found, kl = (None, None) if after is None else (after.divergence, after.kl)
    mended = StepResult(name, kept, before.divergence, found, seconds, left_out, (before.kl, kl))
    return mended, after if kept and after is not None else before


def _measured_before(nets: Nets, here: Position, look: Callable[[nn.Module], _Seen]) -> _Seen:
    """The divergence at the beginning of a step that was stopped on its way."""
    now = state_of(nets.converted)
    nets.converted.load_state_dict(here.before)
    seen = look(nets.converted)
    nets.converted.load_state_dict(now)
    return seen
