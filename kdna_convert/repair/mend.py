"""The steps of a repair one after the other, each kept only where it helps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from torch import nn

from ..errors import NumericsError
from ..specs import Divergence, Options, Progress
from . import Step, step_of
from .ledger import Ledger, Position, state_of
from .nets import Nets

Measure = Callable[[nn.Module], Divergence]


@dataclass(frozen=True)
class Mended:
    """What became of one step: the divergence before and after it, and whether it was kept. `left_out`: codes by layer,
    or, of the whole step, under "". `after` is None for a step that did nothing, or left a net without finite answers.
    """

    step: str
    kept: bool
    before: Divergence
    after: Divergence | None
    seconds: float
    left_out: dict[str, str] = field(default_factory=dict)


def mend(
    nets: Nets,
    steps: Sequence[tuple[str, Options]],
    measure: Measure,
    *,
    ledger: Ledger | None = None,
    position: Position | None = None,
    progress: Progress | None = None,
) -> tuple[Mended, ...]:
    """Run the steps on `nets.converted`, in place. A step that does not lower the KL divergence is undone.

    With a `ledger`, what is done is written down as it goes; `position`, as the ledger read it, is gone on from.
    """
    here = position or Position()
    done = [_record(record) for record in here.records]
    seen = measure(nets.converted) if not here.before else None
    for place in range(here.step, len(steps)):
        name, options = steps[place]
        step = step_of(name, options)
        if not here.before:
            here.before = state_of(nets.converted)
        here.step = place
        seen = seen or _measured_before(nets, here, measure)
        mended = _run(nets, name, step, seen, here, measure, ledger, progress)
        seen = mended.after if mended.kept and mended.after is not None else seen
        done.append(mended)
        here = Position(place + 1, 0, [asdict(one) for one in done], here.notes)
        if ledger is not None:
            ledger.write(nets.converted, here, now=True)
    return tuple(done)


def _run(
    nets: Nets,
    name: str,
    step: Step,
    before: Divergence,
    here: Position,
    measure: Measure,
    ledger: Ledger | None,
    progress: Progress | None,
) -> Mended:
    began = time.perf_counter()

    def tick(done: int, of: int) -> None:
        here.block = done
        if ledger is not None:
            ledger.write(nets.converted, here)
        if progress is not None:
            progress(f"repair: {name}", done, of)

    after: Divergence | None = None
    try:
        left_out = step.run(nets, here.block, tick)
        after = None if "" in left_out else measure(nets.converted)
    except NumericsError:  # answers that are not finite: a step not to keep
        left_out = {}
    kept = after is not None and math.isfinite(after.kl) and after.kl < before.kl
    if not kept:
        nets.converted.load_state_dict(here.before)
    return Mended(name, kept, before, after, round(time.perf_counter() - began, 2), left_out)


def _measured_before(nets: Nets, here: Position, measure: Measure) -> Divergence:
    """The divergence at the beginning of a step that was stopped on its way."""
    now = state_of(nets.converted)
    nets.converted.load_state_dict(here.before)
    seen = measure(nets.converted)
    nets.converted.load_state_dict(now)
    return seen


def _record(record: dict[str, object]) -> Mended:
    seen = {key: None if record[key] is None else Divergence(**record[key]) for key in ("before", "after")}  # type: ignore[arg-type]
    return Mended(**{**record, **seen})  # type: ignore[arg-type]
