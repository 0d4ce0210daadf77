"""Run the steps of a repair in order, and keep each only if it helps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter
from torch import nn

from ...core.errors import NumericsError
from ...core.measurements import Divergence
from ...core.specs import Options, Progress
from ...network.folder.report import StepResult
from . import step_of
from .net_pair import NetPair
from .repair_file import RepairFile, RepairState, copy_state, is_in_state, restore

Measure = Callable[[nn.Module], Divergence]


@dataclass(frozen=True)
class _Measured:
    """A net's divergence, and the distance that decides: KL divergence, or for one output the logit error."""

    divergence: Divergence
    distance: float


def run_steps(
    nets: NetPair,
    steps: Sequence[tuple[str, Options]],
    measure: Measure,
    *,
    judge: Measure | None = None,
    first: Divergence | None = None,
    file: RepairFile | None = None,
    state: RepairState | None = None,
    progress: Progress | None = None,
) -> tuple[StepResult, ...]:
    """Run repair steps on `nets.converted`, in place. A step that does not lower the distance is undone.

    Args:
        nets: The original and the converted net, and images.
        steps: Names and options of the steps.
        measure: The divergence from the original, for the results.
        judge: The divergence that decides, if it is not `measure`.
        first: What `measure` gives for the net as it is, if that is known.
        file: Where the state is written as the repair goes.
        state: The state to resume from, as `file` read it.
        progress: Called after every block.

    Returns:
        The result of each step.
    """

    def look(net: nn.Module, known: Divergence | None = None) -> _Measured:
        divergence = measure(net) if known is None else known
        return _Measured(divergence, (divergence if judge is None else judge(net)).distance)

    state = state or RepairState()
    results = TypeAdapter(list[StepResult]).validate_python(state.records)
    measured = look(nets.converted, first) if first is not None or not state.before else None
    for place in range(state.step, len(steps)):
        state.step = place
        if not state.before:
            state.before = copy_state(nets.converted)
        measured = measured or _measured_before(nets, state, look)
        result, measured = _Run(nets, state, file, progress).step(*steps[place], measured, look)
        results.append(result)
        state = RepairState(place + 1, 0, [asdict(one) for one in results], state.notes)
        if file is not None:
            file.write(nets.converted, state, now=True)
    return tuple(results)


@dataclass(frozen=True)
class _Run:
    """One step of a repair as it runs."""

    nets: NetPair
    state: RepairState
    file: RepairFile | None
    progress: Progress | None

    def step(
        self, name: str, options: Options, before: _Measured, look: Callable[[nn.Module], _Measured]
    ) -> tuple[StepResult, _Measured]:
        """Run a step; undo it if it does not help. Returns its result and how the net measures afterwards."""
        began = time.perf_counter()
        nets = self.nets

        def block_done(done: int, of: int) -> None:
            self.state.block = done
            if self.file is not None:
                self.file.write(nets.converted, self.state)
            if self.progress is not None:
                self.progress(f"repair: {name}", done, of)

        after: _Measured | None = None
        try:
            skipped = step_of(name, options).run(nets, self.state.block, block_done)
            skipped |= dict.fromkeys(nets.late, "KD145")
            if "" not in skipped:
                after = before if is_in_state(nets.converted, self.state.before) else look(nets.converted)
        except NumericsError:  # outputs that are not finite: the step is undone
            skipped = {}
        kept = after is not None and math.isfinite(after.distance) and after.distance < before.distance
        if not kept:
            restore(nets.converted, self.state.before)
        result = StepResult(
            step=name,
            kept=kept,
            before=before.divergence,
            after=None if after is None else after.divergence,
            seconds=round(time.perf_counter() - began, 2),
            left_out=skipped,
            judged=(before.distance, None if after is None else after.distance),
        )
        return result, after if kept and after is not None else before


def _measured_before(nets: NetPair, state: RepairState, look: Callable[[nn.Module], _Measured]) -> _Measured:
    """How the net measured at the beginning of an interrupted step."""
    now = copy_state(nets.converted)
    restore(nets.converted, state.before)
    measured = look(nets.converted)
    restore(nets.converted, now)
    return measured
