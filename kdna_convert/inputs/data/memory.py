"""DATA that is not on disk: a tensor, a torch Dataset, or any iterable of batches such as one's own DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.errors import DataError
from .images import Batch, joined
from .sources import Classes, Label, Sample

Batches = Iterable[Tensor | tuple[Tensor, Tensor | None]]


class Held:
    """Inputs (N, ...) in memory, with labels (N,), rows of them (N, length), or without."""

    mapped = False

    def __init__(self, inputs: Tensor, labels: Tensor | None, classes: Classes | None = None) -> None:
        self.classes: Classes = classes or {}
        self.inputs, self.labels = _as_input(inputs), labels
        self.labelled = labels is not None

    def __len__(self) -> int:
        return len(self.inputs)

    def name(self, index: int) -> str:
        return f"input {index}"

    def sample(self, index: int) -> Sample:
        return self.inputs[index], None if self.labels is None else _label(self.labels[index])

    def finish(self, inputs: Tensor) -> Tensor:
        return inputs


class Wrapped:
    """A torch Dataset that gives one input (C, H, W), or an input and its label, already as the net takes it."""

    mapped = False

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.classes: Classes = {}
        self.dataset: Any = dataset
        self.labelled = len(self) > 0 and self.sample(0)[1] is not None

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"input {index}"

    def sample(self, index: int) -> Sample:
        inputs, label = _pair(self.dataset[index])
        return _as_input(inputs), None if label is None else _label(label)

    def finish(self, inputs: Tensor) -> Tensor:
        return inputs


def iterate(data: Batches) -> Iterator[Batch]:
    """Each batch, float32, with its labels or None. Raises DataError KD401 where there is none or it is no batch."""
    count = 0
    for batch in data:
        inputs, labels = _pair(batch)
        count += len(inputs)
        yield _as_input(inputs), labels
    if not count:
        raise DataError("KD401", "the batches given are empty; an iterator can be read only once, pass a list instead")


def hold(data: Batches, limit: int | None) -> Held:
    """The first `limit` inputs of an iterable of batches, kept in memory to be split and read again."""
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    count = 0
    for batch, known in iterate(data):
        inputs.append(batch)
        count += len(batch)
        if known is not None:
            labels.append(known)
        if limit is not None and count >= limit:
            break
    return Held(torch.cat(inputs)[:limit], joined(labels)[:limit] if len(labels) == len(inputs) else None)


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and 1 <= len(item) <= 2:
        return item[0], item[1] if len(item) == 2 else None
    return item, None


def _label(label: Any) -> Label:
    row = torch.as_tensor(label)
    return row.long() if row.ndim == 1 else int(label)


def _as_input(inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        what = f"a tensor of {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise DataError("KD401", f"DATA gives {what}; give floating-point tensors, normalised as the net takes them")
    return inputs.float()
