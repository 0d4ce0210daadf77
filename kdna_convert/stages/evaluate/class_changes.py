"""The answers of two nets counted by class: which classes lost and gained, and which wrong answers are new."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from ...core.disagreement import AnswerCounts, ClassChange, Confusion

# The new confusions that are kept.
MOST = 100
Pairs = Counter[tuple[int, int]]


class AnswerTally:
    """Counts of (right answer, given answer) for both nets, once with labels and once with the original's answers.

    `by_union`: the share of a class is the intersection over the union, as for pixels.
    """

    def __init__(self, *, by_union: bool = False) -> None:
        self.by_union = by_union
        self.before: Pairs = Counter()
        self.after: Pairs = Counter()
        self.against: Pairs = Counter()  # the converted net's answers, the original's as the right ones
        self.answers = self.changed = self.lost = self.gained = 0
        self.labeled = True

    def add(self, converted: Tensor, original: Tensor, labels: Tensor | None, ignored: int | None = None) -> None:
        """Answers, int64 of one shape. Those with the label `ignored` do not count."""
        converted, original = converted.flatten().cpu(), original.flatten().cpu()
        if labels is None:
            self.labeled = False
        else:
            labels = labels.flatten().cpu()
            counted = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
            labels, converted, original = labels[counted], converted[counted], original[counted]
            self.before.update(_pairs(labels, original))
            self.after.update(_pairs(labels, converted))
            self.lost += int(((original == labels) & (converted != labels)).sum())
            self.gained += int(((original != labels) & (converted == labels)).sum())
        self.against.update(_pairs(original, converted))
        self.answers += len(converted)
        self.changed += int((converted != original).sum())

    @property
    def counts(self) -> AnswerCounts:
        lost, gained = (self.lost, self.gained) if self.labeled else (None, None)
        return AnswerCounts(self.answers, self.changed, lost, gained)

    def classes(self) -> tuple[ClassChange, ...]:
        """Each class that occurs as a right answer, those that changed most for their count first."""
        before, after = self._sides()
        was, now = self._shares(before), self._shares(after)
        sizes = _sums(before, 0)
        rows = [ClassChange(number, sizes[number], was[number], now[number]) for number in sizes]
        return tuple(sorted(rows, key=lambda row: (-self._weight(row), row.number)))

    def confusions(self) -> tuple[Confusion, ...]:
        """The wrong answers that the converted net gives more often, the largest increase first, at most MOST."""
        before, after = self._sides()
        rows = [
            Confusion(truth, answer, before[truth, answer], count)
            for (truth, answer), count in after.items()
            if truth != answer and count > before[truth, answer]
        ]
        return tuple(sorted(rows, key=lambda row: (row.before - row.after, row.truth, row.answer))[:MOST])

    def _sides(self) -> tuple[Pairs, Pairs]:
        if self.labeled:
            return self.before, self.after
        return Counter({(truth, truth): count for truth, count in _sums(self.against, 0).items()}), self.against

    def _shares(self, pairs: Pairs) -> dict[int, float]:
        sizes, given = _sums(pairs, 0), _sums(pairs, 1) if self.by_union else Counter[int]()
        hits = {number: pairs[number, number] for number in sizes}
        return {
            number: hits[number] / (size + given[number] - hits[number] if self.by_union else size)
            for number, size in sizes.items()
        }

    def _weight(self, row: ClassChange) -> float:
        """How much a class changed. A share of few images changes by chance; pixels of an image are not independent."""
        return abs(row.after - row.before) * (1 if self.by_union else row.count**0.5)


def _pairs(truth: Tensor, answers: Tensor) -> Pairs:
    """How often each pair occurs; no number is negative."""
    if not len(truth):
        return Counter()
    size = int(answers.max()) + 1
    keys, counts = torch.unique(truth * size + answers, return_counts=True)
    found = zip(keys.tolist(), counts.tolist(), strict=True)
    return Counter({divmod(key, size): count for key, count in found})


def _sums(pairs: Pairs, side: int) -> Counter[int]:
    """Counts by the right answer (0) or by the given one (1)."""
    sums: Counter[int] = Counter()
    for pair, count in pairs.items():
        sums[pair[side]] += count
    return sums
