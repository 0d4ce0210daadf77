"""The steps of the optimizer: each takes the next batches and returns one outcome."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...inputs.data import Images, TrainBatch, Views, shared_loader, train_loader
from ...inputs.finetune_settings import Settings
from ...routing.temperature import Annealing
from .engine import Engine
from .folded_norms import Pair, folded_norms
from .length import Length
from .loss import Objective
from .rate import Schedule, create_optimizer, fitting_rate, free
from .sampled_sizes import drawn_share, sized
from .stopping import StopRequest
from .training_state import Numbers

FASTER = torch.channels_last  # the memory format in which convolutions are fastest


@dataclass(frozen=True)
class StepOutcome:
    """A step, averaged over the processes. `failed`: the loss or its gradient was not finite, and no tensor changed."""

    loss: float
    agreement: float
    stop: bool
    elapsed: float
    failed: bool


class Stepper:
    """Runs the steps of one fine-tune, in place. `seconds` is the time of the steps, without validations."""

    def __init__(
        self, engine: Engine, objective: Objective, images: Images, views: Views, pairs: tuple[Pair, ...]
    ) -> None:
        self.engine, self.objective, self.images, self.views, self.pairs = engine, objective, images, views, pairs
        self.settings: Settings = objective.settings
        model, self.codes = objective.student.model, objective.student.codes
        self.nested = objective.student.nested if self.settings.sampled else ()
        subnets = objective.subnets
        self.parameters = free(model) | ({} if subnets is None else dict(subnets.named_parameters(prefix="subnets")))
        self.annealing = Annealing(model)
        self.length = Length(self.settings.steps_for(len(images)), self.settings.seconds)
        self.rate = self._rate()
        optimizer = create_optimizer(model, self.parameters.values(), self.settings, self.rate, self.codes)
        self.net, self.optimizer = engine.prepare(model, optimizer)
        if subnets is not None:
            self.objective = replace(objective, subnets=engine.prepare(subnets))
        self.learning = [net for net in (self.net, self.objective.subnets) if net is not None]
        self.schedule = Schedule(self.optimizer)
        self.seconds = 0.0
        self.stream: Any = None

    def steps(self, numbers: Numbers, began: float, request: StopRequest) -> Iterator[StepOutcome]:
        """An endless sequence of steps, after step `numbers.step`; `began` is the clock at step 0."""
        size, accumulate = self.settings.batch_size // self.settings.accumulate, self.settings.accumulate
        begin, workers = numbers.step * accumulate, min(4, torch.get_num_threads())
        loader = self._loader(size, begin, workers)
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
                        outcome = self._step(batches, began, request)
                    self.seconds += time.monotonic() - start
                    numbers, elapsed = replace(numbers, step=numbers.step + 1), outcome.elapsed
                    yield outcome
        finally:
            if not self.views.streamed:
                loader.end()

    def close(self) -> None:
        """Close the stream, if images are read from one."""
        if self.stream is not None:
            self.stream.end()
            self.stream = None

    def _loader(self, size: int, begin: int, workers: int) -> Any:
        """This process's part of every batch from batch `begin`. A stream stays open, with its shuffled images."""
        if self.stream is not None and self.stream.place == begin:
            return self.stream
        self.close()
        loader = shared_loader(
            self.views, size, self.settings.seed, begin=begin, workers=workers, divide=self.engine.prepare
        )
        self.stream = loader if self.views.streamed else None
        return loader

    def rounded(self) -> AbstractContextManager[None]:
        """Inside the context, the net runs on rounded codes, if codes are trained."""
        return nullcontext() if self.codes is None else self.codes.rounded()

    def _step(self, batches: Iterator[TrainBatch], began: float, request: StopRequest) -> StepOutcome:
        accelerator, parts = self.engine.accelerator, self.settings.accumulate
        losses, agreements, norm = 0.0, 0.0, math.inf
        for _ in range(parts):
            inputs, labels = self._placed(next(batches))
            with accelerator.accumulate(*self.learning), self.engine.autocast():
                with self.rounded():
                    result = self.objective(self.net, inputs, labels)
                    self.engine.backward(result.loss)
                losses += float(result.loss.detach()) / parts
                agreements += float(result.agreement) / parts
                if accelerator.sync_gradients:
                    norm = self.engine.norm(self.optimizer, self.parameters.values(), self.settings.clip)
        stops, clock = float(request.received), time.monotonic() - began
        loss, agreement, norm, stop, elapsed = self.engine.mean(losses, agreements, norm, stops, clock)
        # With a loss scale, gradients may overflow until it is small enough.
        failed = not math.isfinite(loss) or not (math.isfinite(norm) or self.engine.scale[0] > 1)
        if failed:
            self.engine.skip()
        else:
            if self.codes is not None:
                self.codes.charge(loss)
            self.engine.step(self.optimizer)
        self.optimizer.zero_grad()
        return StepOutcome(loss, agreement, stop > 0, elapsed, failed)

    def _rate(self) -> float:
        """The peak rate of the settings, or an estimate from the first batch, which every process reads."""
        if self.settings.lr is not None:
            return self.settings.lr
        size = self.settings.batch_size // self.settings.accumulate
        inputs, labels = self._placed(next(iter(train_loader(self.views, size, self.settings.seed))))
        with self._folded():
            result = self.objective(self.objective.student.model, inputs, labels)
            coded = () if self.codes is None else self.codes.ids
            return fitting_rate([own for own in self.parameters.values() if id(own) not in coded], result.loss)

    def _placed(self, batch: TrainBatch) -> tuple[Tensor, Tensor | None]:
        """The batch on the device, in the fastest memory format. Records images that could not be read."""
        for position, reason in batch.unread:
            self.images.skip(position, reason)
        inputs = batch.inputs.to(self.engine.device)
        inputs = inputs.contiguous(memory_format=FASTER) if inputs.ndim == 4 else inputs
        return inputs, None if batch.labels is None else batch.labels.to(self.engine.device)

    @contextmanager
    def _folded(self) -> Iterator[None]:
        student = self.objective.student
        with folded_norms(student.model, self.pairs), folded_norms(student.original, self.pairs):
            yield

    def _sized(self, step: int) -> AbstractContextManager[None]:
        share = drawn_share(self.settings.seed, step) if self.nested else 1.0
        return sized(self.objective.student.model, self.nested, share)
