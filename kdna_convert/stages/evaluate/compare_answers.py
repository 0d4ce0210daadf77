"""Compare the answers of two nets in one pass over labeled or unlabeled inputs, and keep the worst of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from operator import truediv
from statistics import median

import torch
from torch import Tensor, nn

from ...core.disagreement import Answer, Disagreement, Example, Pixels
from ...core.measurements import Evaluation
from ...core.specs import DataConfig, Progress
from ...network.totals import totals
from ...tasks import Outputs, Statistics, Task
from ...tasks.segment import IGNORED
from .accuracy import evaluation_of, labeled_rows
from .class_changes import AnswerTally
from .input_pictures import is_sound, picture_of, wave_of, why_unseen
from .outputs import Batch, PassedBatch, statistics
from .task_answers import KINDS, numbered_yes

# What distinguishes the original's statistics.
_OF_ORIGINAL = "original "
# The examples near the median that are kept while the median is not known.
_NEAR = 4


@dataclass(frozen=True)
class AnswerComparison:
    """Both nets on the same inputs, and where they disagree."""

    original: Evaluation
    converted: Evaluation
    disagreement: Disagreement


def compare_answers(
    model: nn.Module,
    original: nn.Module,
    batches: Iterable[Batch],
    *,
    task: Task,
    config: DataConfig,
    pictures: bool = True,
    metadata: Mapping[str, str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> AnswerComparison:
    """Evaluate a converted net and its original, and find the inputs on which their answers differ most.

    Args:
        model: The converted net.
        original: The original.
        batches: Inputs, with or without labels.
        task: What the outputs mean.
        config: How pictures became inputs, which is undone to show them.
        pictures: Whether examples have pictures.
        metadata: The metadata of the converted net's file, for exact `bytes`.
        device: Where the nets are moved, in place; None: where they are.
        progress: Called before each batch.

    Raises:
        DataError: KD401 without images, KD402 for labels of another task.
        ModelError: KD308 if the outputs are of another task.
        NumericsError: KD702 for outputs that are not finite.
    """
    nets = [net if device is None else net.to(device) for net in (model, original)]
    found = _Finder(task, config, pictures)
    rows = statistics(nets, batches, found.add, task=task, doing="compare", progress=progress)
    first = {name.removeprefix(_OF_ORIGINAL): own for name, own in rows.items() if name.startswith(_OF_ORIGINAL)}
    rows = {name: own for name, own in rows.items() if not name.startswith(_OF_ORIGINAL)}
    example = found.first
    return AnswerComparison(
        evaluation_of(first | {"images": rows["images"]}, totals(original, example), task, compared=False),
        evaluation_of(rows, totals(model, example, metadata), task, compared=True),
        found.disagreement(),
    )


class _Finder:
    """What is kept during the pass: a value for each input, counts by class, and a few examples."""

    def __init__(self, task: Task, config: DataConfig, pictures: bool) -> None:
        self.task, self.kind, self.config, self.pictures = task, KINDS[task.name], config, pictures
        self.values: list[float] = []
        self.tally = AnswerTally(by_union=task.name == "segment")
        self.worst = _Worst(self.kind.shown)
        self.near: list[Example] = []
        self.labeled = True
        self.first = torch.empty(0)

    def add(self, batch: PassedBatch) -> Statistics:
        """Count a part of a batch, and return its statistics for both nets."""
        own, other = batch.outputs
        if not self.values:
            self.first = batch.inputs[:1]
        compared = self.task.compare(own, other)
        labeled = labeled_rows(self.task, own, batch.labels)
        of_original = labeled_rows(self.task, other, batch.labels)
        self.labeled &= batch.labels is not None
        values = self.kind.values(compared, own, other).tolist()
        self._count(own, other, batch.labels)
        self._keep(batch, values)
        self.values += values
        of_original = {_OF_ORIGINAL + name: rows for name, rows in of_original.items()}
        return {"images": torch.ones(len(batch.inputs))} | compared | labeled | of_original

    def disagreement(self) -> Disagreement:
        has_classes = self.kind.decisions is not None
        middle = median(self.values)
        return Disagreement(
            task=self.task.name,
            labeled=self.labeled,
            values=tuple(self.values),
            examples=self.worst.examples,
            typical=min(self.near, key=lambda each: abs(each.value - middle), default=None),
            counts=self.tally.counts if has_classes else None,
            classes=self.tally.classes() if has_classes else (),
            confusions=self.tally.confusions() if has_classes else (),
            unseen=why_unseen(self.first[0], self.config) if self.pictures else "The inputs are not shown.",
        )

    def _count(self, own: Outputs, other: Outputs, labels: Tensor | None) -> None:
        decisions = self.kind.decisions
        if decisions is None:
            return
        if labels is not None and self.task.name == "binary":
            labels = numbered_yes(labels.reshape(own[0].shape) == 1)
        ignored = IGNORED if self.task.name == "segment" else None
        self.tally.add(decisions(own), decisions(other), labels, ignored)

    def _keep(self, batch: PassedBatch, values: list[float]) -> None:
        """Keep the examples that are furthest apart, and of images for images those near the median so far."""
        for row, value in enumerate(values):
            far = -value if self.kind.lowest else value
            if far > (-self.kind.nothing if self.kind.lowest else self.kind.nothing):
                self.worst.offer(far, partial(self._example, batch, row, value))
        if self.task.name != "image":
            return
        middle = median(self.values + values)
        row = min(range(len(values)), key=lambda place: abs(values[place] - middle))
        near = sorted([*self.near, self._example(batch, row, values[row])], key=lambda each: abs(each.value - middle))
        self.near = near[:_NEAR]

    def _example(self, batch: PassedBatch, row: int, value: float) -> Example:
        own, other = (tuple(each[row : row + 1] for each in side) for side in batch.outputs)
        converted, original = self.kind.answers(own, other)
        x, truth = batch.inputs[row], None
        pictures: tuple[tuple[str, Pixels], ...] = ()
        wave: tuple[tuple[float, float], ...] = ()
        if batch.labels is not None and self.kind.truth is not None:
            truth = self.kind.truth(batch.labels[row], original)
        if self.pictures:
            shown = picture_of(x, self.config)
            pictures = () if shown is None else self.kind.pictures(shown, own, other)
            wave = wave_of(x, self.config) if is_sound(x, self.config) else ()
        converted, original = (_in_shares(answer, x) for answer in (converted, original))
        return Example(len(self.values) + row, value, original, converted, truth, pictures, wave)


class _Worst:
    """The examples with the largest keys. An example is made only once its key is among them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._heap: list[tuple[float, int, Example]] = []
        self._order = count(0, -1)  # of equal keys the first stays

    def offer(self, key: float, make: Callable[[], Example]) -> None:
        if len(self._heap) < self.most:
            heapq.heappush(self._heap, (key, next(self._order), make()))
        elif key > self._heap[0][0]:
            heapq.heapreplace(self._heap, (key, next(self._order), make()))

    @property
    def examples(self) -> tuple[Example, ...]:
        return tuple(example for *_, example in sorted(self._heap, key=lambda row: row[:2], reverse=True))


def _in_shares(answer: Answer, x_chw: Tensor) -> Answer:
    """The answer with boxes in shares of the input's sides, since its picture may be reduced."""
    if not answer.boxes:
        return answer
    height, width = x_chw.shape[-2:]
    sides = (width, height, width, height)
    boxes = (replace(box, corners=tuple(map(truediv, box.corners, sides))) for box in answer.boxes)
    return replace(answer, boxes=tuple(boxes))
