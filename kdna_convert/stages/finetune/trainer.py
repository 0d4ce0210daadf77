"""The training loop: steps, validations on the held-out images, saved states, and recovery from a loss of NaN."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor

from ...core.errors import GuardError
from ...core.specs import Progress
from ...inputs.data import Images, Views
from ...inputs.finetune_settings import Settings
from .average import Average
from .engine import Engine
from .folded_norms import Pair
from .log import StepLog
from .loss import Objective
from .sampled_sizes import JUDGED, sized
from .steps import Stepper
from .stopping import StopRequest, stopping
from .student import RunFiles
from .training_state import Numbers, State, Tensors, assign, copies, put, read, take, write
from .validation import Validation

FAILURES = 2  # losses that are not finite after which the fine-tune continues at half the rate


@dataclass(frozen=True)
class TrainingResult:
    """The result of a fine-tune.

    Attributes:
        state: The last state.
        ended: "length", or "plateau" where the validation loss no longer fell.
        images_per_second: The speed of the steps, without validations.
    """

    state: State
    ended: str
    images_per_second: float


class Trainer:
    """One fine-tune of the objective's student, in place."""

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        images: Images,
        views: Views,
        pairs: tuple[Pair, ...],
        validation: Validation,
        files: RunFiles,
        progress: Progress | None,
    ) -> None:
        self.engine, self.validation, self.files, self.progress = engine, validation, files, progress
        self.settings: Settings = objective.settings
        self.model, self.codes = objective.student.model, objective.student.codes
        self.stepper = Stepper(engine, objective, images, views, pairs)
        self.length, self.rate, self.parameters = self.stepper.length, self.stepper.rate, self.stepper.parameters
        self.average = Average(self.parameters, self.settings.ema)

    def run(self) -> TrainingResult:
        """Train to the end.

        Raises:
            GuardError: KD802 if the loss does not stay finite; the best tensors are restored before.
            FolderError: KD604 or KD610.
            KeyboardInterrupt: on a signal, after the state is written.
        """
        state = self._begin()
        began, first = time.monotonic() - state.numbers.elapsed, state.numbers.step
        log = StepLog(self.engine, self.settings, self.length, self.files.log, first, self.progress)
        with stopping() as request, closing(log), closing(self.stepper):
            while not self._done(state.numbers):
                state = self._run_to_validation(state, began, request, log)
                if self._plateau(state.numbers):
                    return self._result(state, "plateau", first)
        return self._result(state, "length", first)

    @property
    def kept(self) -> dict[str, Tensor]:
        """The tensors that `State.best` holds: the trainable ones, and those that the schedule changes."""
        return {**self.parameters, **self.stepper.annealing.tensors}

    def _begin(self) -> State:
        """The state of a stopped run, or the initial state."""
        saved: State | None = None
        if self.files.work is not None and self.files.resume and self.engine.leads:
            saved = read(self.files.work, self.files.mark)
        saved = cast("State | None", self.engine.from_first(saved))
        if saved is not None:
            self._put(saved)
            return saved
        judged = self._judged() if self.stepper.nested or self.codes else self.validation.first
        state = self._state(Numbers(kls=() if judged is None else (judged,)))
        self._write(state)
        return state

    def _state(self, numbers: Numbers, best: Tensors | None = None) -> State:
        """The current state; without `best`, its tensors are the best."""
        best = copies({**self.average.tensors, **self.stepper.annealing.tensors}) if best is None else best
        price = 0.0 if self.codes is None else self.codes.price
        numbers = replace(numbers, scale=self.engine.scale, price=price)
        return take(numbers, self.parameters, best, self.stepper.optimizer, self.average.kept)

    def _put(self, state: State) -> None:
        """Load a state into the net and the optimizer, in place."""
        put(state, self.parameters, self.stepper.optimizer)
        self.engine.scale = state.numbers.scale
        if self.codes is not None:
            self.codes.price = state.numbers.price
        if state.average:
            assign(self.average.tensors, state.average)

    def _run_to_validation(self, state: State, began: float, request: StopRequest, log: StepLog) -> State:
        """Run the steps up to the next validation, validate, and write and return the state."""
        numbers = state.numbers
        for outcome in self.stepper.steps(numbers, began, request):
            if outcome.failed:
                return self._failed(state)
            total, count = numbers.pending
            pending = (total + outcome.loss, count + 1)
            agreed = numbers.agreed + outcome.agreement
            numbers = replace(numbers, step=numbers.step + 1, elapsed=outcome.elapsed, pending=pending, agreed=agreed)
            self.average.follow(numbers.step)
            log.add(numbers, outcome, self.stepper.optimizer.param_groups[0]["lr"])
            if outcome.stop:
                self._write(self._state(numbers, state.best))
                length = "" if self.length.steps is None else f" of {self.length.steps}"
                raise KeyboardInterrupt(f"stopped after step {numbers.step}{length}")
            if numbers.step % self.settings.save_every == 0 or self._done(numbers):
                break
        state = self._validated(numbers, state)
        self._write(state)
        return state

    def _failed(self, state: State) -> State:
        """Return to the last state and halve the rate. Raises GuardError KD802 the third time."""
        if state.numbers.falls == FAILURES:
            assign(self.kept, state.best)
            self._write(state)
            why = f"the loss or its gradient was not finite {FAILURES + 1} times, at half the rate each time"
            raise GuardError("KD802", f"{why}; last after step {state.numbers.step}. Try a lower --lr, or other images")
        self._put(state)
        return state.with_numbers(falls=state.numbers.falls + 1, factor=state.numbers.factor / 2)

    def _validated(self, numbers: Numbers, before: State) -> State:
        """The state after a validation on the held-out images."""
        total, count = numbers.pending
        rate, agreement = self.stepper.optimizer.param_groups[0]["lr"], numbers.agreed / max(1, count)
        places = (*numbers.places, (numbers.step, numbers.elapsed, rate, agreement))
        losses = (*numbers.losses, total / max(1, count))
        numbers = replace(numbers, losses=losses, places=places, pending=(0.0, 0), agreed=0.0)
        with self.average.shown(), self.stepper.rounded():
            judged = self._judged()
        if judged is None:
            return self._state(numbers)
        better = judged < min(before.numbers.kls)
        numbers = replace(numbers, kls=(*numbers.kls, judged))
        if not better:
            return self._state(numbers, before.best)
        return self._state(replace(numbers, best=len(numbers.kls) - 1))

    def _judged(self) -> float | None:
        """The loss that selects the best step: of the whole net, and for a nested net the mean over JUDGED sizes."""
        if self.codes is not None and not self.codes.fits():
            return math.inf
        losses: list[float] = []
        nested = self.stepper.nested
        for share in JUDGED if nested else (1.0,):
            with sized(self.model, nested, share):
                loss = self.validation.loss()
            if loss is None:
                return None
            losses.append(loss)
        return sum(losses) / len(losses)

    def _plateau(self, numbers: Numbers) -> bool:
        since = len(numbers.kls) - 1 - numbers.best
        return self.settings.patience is not None and bool(numbers.kls) and since >= self.settings.patience

    def _done(self, numbers: Numbers) -> bool:
        return self.length.done(numbers.step, numbers.elapsed)

    def _write(self, state: State) -> None:
        if self.files.work is not None and self.engine.leads:
            write(self.files.work, state, self.files.mark)

    def _result(self, state: State, ended: str, first: int) -> TrainingResult:
        images, seconds = (state.numbers.step - first) * self.settings.batch_size, self.stepper.seconds
        return TrainingResult(state, ended, images / seconds if seconds else 0.0)
