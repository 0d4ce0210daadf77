"""The loop: steps, looks at the held-back images, and what to do when a loss is not finite or somebody stops it."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ...core.errors import GuardError
from ...core.specs import Progress
from ...inputs.data import Images, TrainBatch, Views, train_loader
from ...routing.temperature import Annealing
from .average import Average
from .codes import Codes
from .engine import Engine
from .length import Length
from .log import Log
from .look import Look
from .loss import Objective
from .norms import Pair, folded_norms
from .rate import Schedule, create_optimizer, fitting_rate, free
from .settings import Settings
from .sizes import JUDGED, drawn_share, sized
from .state import Numbers, State, Tensors, assign, copies, put, read, take, write
from .stopping import Asked, stopping

FALLS = 2  # losses that are not finite, before it is given up
FASTER = torch.channels_last  # the layout of images in which convolutions are fastest


@dataclass(frozen=True)
class Keeping:
    """Where a run leaves what it can be gone on from, what the file must be marked with, and where it logs."""

    work: Path | None = None
    resume: bool = False
    mark: str = ""
    log: Path | None = None


@dataclass(frozen=True)
class Ran:
    """`ended` is "length" or "plateau"; `images_per_second` counts the steps alone."""

    state: State
    ended: str
    images_per_second: float


@dataclass(frozen=True)
class _Stepped:
    """One step, in means over the processes. `fell`: the loss or its gradient was not finite, so nothing changed."""

    loss: float
    agreement: float
    stop: bool
    elapsed: float
    fell: bool


class Training:
    """One fine-tune of `objective.model`, in place. `look` measures on the held-back images, and gives None
    without them; its first result is `look.first`. The layers of `nested` take their steps at sampled sizes."""

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        images: Images,
        views: Views,
        pairs: tuple[Pair, ...],
        look: Look,
        keeping: Keeping,
        progress: Progress | None,
        nested: Collection[str] = (),
        codes: Codes | None = None,
    ) -> None:
        self.engine, self.objective, self.images, self.views = engine, objective, images, views
        self.settings: Settings = objective.settings
        self.pairs, self.look, self.keeping, self.progress, self.nested = pairs, look, keeping, progress, nested
        self.codes = codes
        subnets = objective.subnets
        heads = {} if subnets is None else dict(subnets.named_parameters(prefix="subnets"))
        self.parameters = free(objective.model) | heads
        self.average = Average(self.parameters, self.settings.ema)
        self.annealing = Annealing(objective.model)
        self.length = Length(self.settings.steps_for(len(images)), self.settings.seconds)
        self.rate = self._rate()
        optimizer = create_optimizer(objective.model, self.parameters.values(), self.settings, self.rate, codes)
        self.net, self.optimizer = engine.prepare(objective.model, optimizer)
        if subnets is not None:
            self.objective = replace(objective, subnets=engine.prepare(subnets))
        self.learning = [net for net in (self.net, self.objective.subnets) if net is not None]
        self.schedule = Schedule(self.optimizer)
        self.seconds = 0.0  # in steps

    def run(self) -> Ran:
        """Train to the end. Raises GuardError KD802, the kept tensors as they were at their best, when the loss does
        not stay finite; KeyboardInterrupt, the state written, when somebody stops it; FolderError KD604, KD610.
        """
        state = self._begin()
        began, first = time.monotonic() - state.numbers.elapsed, state.numbers.step
        log = self._log(first)
        with stopping() as asked, closing(log) if log else ExitStack():
            while not self._done(state.numbers):
                state = self._stretch(state, began, asked, log)
                if self._plateau(state.numbers):
                    return self._ran(state, "plateau", first)
        return self._ran(state, "length", first)

    @property
    def kept(self) -> dict[str, Tensor]:
        """What a state's best tensors are put back into: the free ones, and what the schedule changes beside them."""
        return {**self.parameters, **self.annealing.tensors}

    def _rate(self) -> float:
        """The peak rate; found from the first batch, which every process reads, where the settings name none."""
        if self.settings.lr is not None:
            return self.settings.lr
        size = self.settings.batch_size // self.settings.accumulate
        inputs, labels = self._placed(next(iter(train_loader(self.views, size, self.settings.seed))))
        with self._folded():
            seen = self.objective(self.objective.model, inputs, labels)
            coded = () if self.codes is None else self.codes.ids
            return fitting_rate([own for own in self.parameters.values() if id(own) not in coded], seen.loss)

    def _placed(self, batch: TrainBatch) -> tuple[Tensor, Tensor | None]:
        """On the device, in the layout that is fast there; what could not be read is noted."""
        for position, reason in batch.unread:
            self.images.skip(position, reason)
        inputs = batch.inputs.to(self.engine.device)
        inputs = inputs.contiguous(memory_format=FASTER) if inputs.ndim == 4 else inputs
        return inputs, None if batch.labels is None else batch.labels.to(self.engine.device)

    @contextmanager
    def _folded(self) -> Iterator[None]:
        with folded_norms(self.objective.model, self.pairs), folded_norms(self.objective.original, self.pairs):
            yield

    def _rounded(self) -> AbstractContextManager[None]:
        return nullcontext() if self.codes is None else self.codes.rounded()

    def _sized(self, step: int) -> AbstractContextManager[None]:
        share = drawn_share(self.settings.seed, step) if self.nested else 1.0
        return sized(self.objective.model, self.nested, share)

    def _begin(self) -> State:
        kept: State | None = None
        if self.keeping.work is not None and self.keeping.resume and self.engine.leads:
            kept = read(self.keeping.work, self.keeping.mark)
        kept = cast("State | None", self.engine.from_first(kept))
        if kept is not None:
            self._put(kept)
            return kept
        judged = self._judged() if self.nested or self.codes else self.look.first
        state = self._state(Numbers(kls=() if judged is None else (judged,)))
        self._write(state)
        return state

    def _state(self, numbers: Numbers, best: Tensors | None = None) -> State:
        """As things stand; without `best`, they are the best."""
        best = copies({**self.average.tensors, **self.annealing.tensors}) if best is None else best
        price = 0.0 if self.codes is None else self.codes.price
        numbers = replace(numbers, scale=self.engine.scale, price=price)
        return take(numbers, self.parameters, best, self.optimizer, self.average.kept)

    def _put(self, state: State) -> None:
        put(state, self.parameters, self.optimizer)
        self.engine.scale = state.numbers.scale
        if self.codes is not None:
            self.codes.price = state.numbers.price
        if state.average:
            assign(self.average.tensors, state.average)

    def _stretch(self, state: State, began: float, asked: Asked, log: Log | None) -> State:
        """The steps up to the next look, the look, and the state that was written then."""
        numbers = state.numbers
        for step in self._stepping(numbers, began, asked):
            if step.fell:
                return self._fall(state)
            total, count = numbers.pending
            numbers = replace(
                numbers, step=numbers.step + 1, elapsed=step.elapsed, pending=(total + step.loss, count + 1)
            )
            self.average.follow(numbers.step)
            self._tell(numbers, step, log)
            if step.stop:
                self._write(self._state(numbers, state.best))
                length = "" if self.length.steps is None else f" of {self.length.steps}"
                raise KeyboardInterrupt(f"stopped after step {numbers.step}{length}")
            if numbers.step % self.settings.save_every == 0 or self._done(numbers):
                break
        state = self._looked(numbers, state)
        self._write(state)
        return state

    def _stepping(self, numbers: Numbers, began: float, asked: Asked) -> Iterator[_Stepped]:
        settings, workers = self.settings, min(4, torch.get_num_threads())
        size, begin = settings.batch_size // settings.accumulate, numbers.step * settings.accumulate
        loader = self.engine.prepare(train_loader(self.views, size, settings.seed, begin=begin, workers=workers))
        batches = iter(loader)
        try:
            with self._folded():
                elapsed = numbers.elapsed
                while True:
                    start = time.monotonic()
                    place = self.length.place(numbers.step, elapsed)
                    self.schedule.set(place, numbers.factor)
                    self.annealing.set(place)
                    with self._sized(numbers.step):
                        step = self._step(batches, began, asked)
                    self.seconds += time.monotonic() - start
                    numbers, elapsed = replace(numbers, step=numbers.step + 1), step.elapsed
                    yield step
        finally:
            loader.end()

    def _step(self, batches: Iterator[TrainBatch], began: float, asked: Asked) -> _Stepped:
        accelerator, parts = self.engine.accelerator, self.settings.accumulate
        losses, agreements, norm = 0.0, 0.0, math.inf
        for _ in range(parts):
            inputs, labels = self._placed(next(batches))
            with accelerator.accumulate(*self.learning), self.engine.autocast():
                with self._rounded():
                    seen = self.objective(self.net, inputs, labels)
                    self.engine.backward(seen.loss)
                losses += float(seen.loss.detach()) / parts
                agreements += float(seen.agreement) / parts
                if accelerator.sync_gradients:
                    norm = self.engine.norm(self.optimizer, self.parameters.values(), self.settings.clip)
        stops, clock = float(asked.to_stop), time.monotonic() - began
        loss, agreement, norm, stop, elapsed = self.engine.mean(losses, agreements, norm, stops, clock)
        # With a scale, gradients may overflow until it is small enough.
        fell = not math.isfinite(loss) or not (math.isfinite(norm) or self.engine.scale[0] > 1)
        if fell:
            self.engine.skip()
        else:
            if self.codes is not None:
                self.codes.charge(loss)
            self.engine.step(self.optimizer)
        self.optimizer.zero_grad()
        return _Stepped(loss, agreement, stop > 0, elapsed, fell)

    def _fall(self, state: State) -> State:
        """Back to the last state, at half the rate. Raises GuardError KD802 the third time."""
        if state.numbers.falls == FALLS:
            assign(self.kept, state.best)
            self._write(state)
            why = f"the loss or its gradient was not finite {FALLS + 1} times, at half the rate each time"
            raise GuardError("KD802", f"{why}; last after step {state.numbers.step}. Try a lower --lr, or other images")
        self._put(state)
        return state.with_numbers(falls=state.numbers.falls + 1, factor=state.numbers.factor / 2)

    def _looked(self, numbers: Numbers, before: State) -> State:
        """The state after a look at the held-back images."""
        total, count = numbers.pending
        numbers = replace(numbers, losses=(*numbers.losses, total / max(1, count)), pending=(0.0, 0))
        with self.average.shown(), self._rounded():
            judged = self._judged()
        if judged is None:
            return self._state(numbers)
        better = judged < min(before.numbers.kls)
        numbers = replace(numbers, kls=(*numbers.kls, judged))
        if not better:
            return self._state(numbers, before.best)
        numbers = replace(numbers, best=len(numbers.kls) - 1)
        return self._state(numbers)

    def _judged(self) -> float | None:
        """The KL that says what is best: of the whole net, and of smaller sizes too where these are trained."""
        if self.codes is not None and not self.codes.fits():
            return math.inf
        found: list[float] = []
        for share in JUDGED if self.nested else (1.0,):
            with sized(self.objective.model, self.nested, share):
                seen = self.look()
            if seen is None:
                return None
            found.append(seen)
        return sum(found) / len(found)

    def _plateau(self, numbers: Numbers) -> bool:
        since = len(numbers.kls) - 1 - numbers.best
        return self.settings.patience is not None and bool(numbers.kls) and since >= self.settings.patience

    def _done(self, numbers: Numbers) -> bool:
        return self.length.done(numbers.step, numbers.elapsed)

    def _write(self, state: State) -> None:
        if self.keeping.work is not None and self.engine.leads:
            write(self.keeping.work, state, self.keeping.mark)

    def _log(self, begin: int) -> Log | None:
        return None if self.keeping.log is None or not self.engine.leads else Log(self.keeping.log, begin)

    def _tell(self, numbers: Numbers, step: _Stepped, log: Log | None) -> None:
        rate = self.settings.batch_size * numbers.step / max(1e-9, numbers.elapsed)
        seen = {"loss": step.loss, "agreement": step.agreement, "images_per_second": rate}
        if log is not None:
            log.add(step=numbers.step, seconds=step.elapsed, rate=self.optimizer.param_groups[0]["lr"], **seen)
        self.engine.accelerator.log(seen, step=numbers.step)
        if self.progress is not None and self.engine.leads:
            total, left = self.length.left(numbers.step, numbers.elapsed)
            self.progress(
                f"fine-tune: loss {step.loss:.4f}, agreement {step.agreement:.1%}, {rate:.0f} images/s, "
                f"{int(left) // 60}:{int(left) % 60:02} left",
                numbers.step,
                total,
            )

    def _ran(self, state: State, ended: str, first: int) -> Ran:
        images = (state.numbers.step - first) * self.settings.batch_size
        return Ran(state, ended, images / self.seconds if self.seconds else 0.0)
